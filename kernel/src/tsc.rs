//! The processor's time-stamp counter.

/// Reads the processor's time-stamp counter.
pub fn tsc() -> u64 {
    // SAFETY: Xen lets guests execute `rdtsc` or emulates it. It does not guarantee `rdtscp`.
    unsafe { core::arch::x86_64::_rdtsc() }
}
