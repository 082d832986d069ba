//! Time: the processor's counter, and the system time that Xen keeps.

mod clock;
mod counter;

pub use clock::Deadline;
pub use counter::tsc;
