//! The flush clock of a guest that writes its page tables by plain stores.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::ops::HvmOp;
use hypercall::{Call, Xen, XenErrno};
use xen_contig::paging::FlushClock;
use xen_contig::sync::AtomicU64;

use crate::scene::{Lasting, explore, join, spawn};

const PRESENT: u64 = 1;

/// A page-table entry, and the copy of it in a TLB. Its vCPU uses the address all the time, so a flush
/// copies the entry again at once.
struct Walker {
    entry: AtomicU64,
    cached: AtomicU64,
}

impl Walker {
    fn flush(&self) {
        self.cached.store(self.entry.load(Relaxed), Relaxed);
    }
}

/// A vCPU removes a mapping by a plain store. If the clock says that a flush covered the store, no TLB
/// has the old entry. So the store must be visible before the vCPU reads the clock.
#[test]
fn a_covered_entry_is_in_no_tlb() {
    explore(3, || {
        let xen = Walker { entry: AtomicU64::new(PRESENT), cached: AtomicU64::new(PRESENT) };
        let (xen, clock) = (Lasting::new(xen), Lasting::new(FlushClock::translated()));
        let (walker, flushes) = (xen.get(), clock.get());
        // SAFETY: every flush of this clock uses the same walker, which flushes the only TLB.
        let flusher = spawn(move || unsafe { flushes.flush_all(walker) });
        xen.entry.store(0, Relaxed);
        let removed = clock.now();
        if clock.covers(removed) {
            assert_eq!(xen.cached.load(Relaxed), 0, "the covering flush did not see the store");
        }
        assert_eq!(join(flusher), Ok(()));
    });
}

/// Two vCPUs flush at the same time. Each flush covers the stores that its vCPU made before, whichever
/// of the two ends first.
#[test]
fn a_flush_covers_the_earlier_stores_of_its_vcpu() {
    explore(3, || {
        let xen = Walker { entry: AtomicU64::new(0), cached: AtomicU64::new(0) };
        let (xen, clock) = (Lasting::new(xen), Lasting::new(FlushClock::translated()));
        let (walker, flushes) = (xen.get(), clock.get());
        let make = move || {
            let before = flushes.now();
            // SAFETY: every flush of this clock uses the same walker, which flushes the only TLB.
            let flushed = unsafe { flushes.flush_all(walker) };
            assert_eq!(flushed, Ok(()));
            assert!(flushes.covers(before));
        };
        let other = spawn(make);
        make();
        join(other);
    });
}

// SAFETY: the call flushes the modelled TLB, and every other call fails. It accesses no other memory.
unsafe impl Xen for Walker {
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        match call {
            Call::Hvm(HvmOp::FlushTlbs) => {
                self.flush();
                Ok(0)
            }
            _ => Err(XenErrno::ENOSYS),
        }
    }
}
