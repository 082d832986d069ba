//! `public/sched.h`.

use super::assert_layout;

/// `struct sched_poll`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SchedPoll {
    /// The list of event channels to wait for.
    pub ports: *mut u32,
    /// The number of event channels in the list.
    pub nr_ports: u32,
    /// The system time, in nanoseconds since boot, at which to stop waiting; 0 for never.
    pub timeout: u64,
}
assert_layout!(SchedPoll, size 24, ports @ 0, nr_ports @ 8, timeout @ 16);
