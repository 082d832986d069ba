//! Which vCPU a thread is.

use std::cell::Cell;

thread_local! {
    static VCPU: Cell<u32> = const { Cell::new(0) };
}

/// Makes the calling thread that vCPU: its hypercalls and its accesses to memory are that vCPU's from
/// now on. A thread that never says is vCPU 0.
///
/// Under loom all threads are one vCPU, because loom runs them in one thread of the host.
pub fn run_on(vcpu: u32) {
    VCPU.set(vcpu);
}

/// The vCPU that the calling thread is.
pub(crate) fn current() -> u32 {
    VCPU.get()
}

/// Lets other threads get on.
pub(crate) fn give_way() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    loom::thread::yield_now();
}
