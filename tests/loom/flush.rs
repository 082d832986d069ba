//! What a flush covers, in a guest whose page tables are its own memory.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::ops::HvmOp;
use hypercall::{Call, Xen, XenErrno};
use xen_contig::paging::FlushClock;
use xen_contig::sync::AtomicU64;

use crate::scene::{Lasting, explore, join, spawn};

const PRESENT: u64 = 1;

/// A page-table entry, and what a vCPU remembers of it. That vCPU goes there all the time: behind a
/// flush it looks the entry up again at once.
struct Walker {
    entry: AtomicU64,
    remembered: AtomicU64,
}

impl Walker {
    fn flush(&self) {
        self.remembered.store(self.entry.load(Relaxed), Relaxed);
    }
}

/// Whoever takes a mapping away by a plain store and finds that a flush has covered it: nobody
/// remembers it. The store must not come behind the look at the clock.
#[test]
fn what_a_flush_covers_is_forgotten() {
    explore(3, || {
        let xen = Walker { entry: AtomicU64::new(PRESENT), remembered: AtomicU64::new(PRESENT) };
        let (xen, clock) = (Lasting::new(xen), Lasting::new(FlushClock::translated()));
        let (walker, flushes) = (xen.get(), clock.get());
        // SAFETY: the walker is the only hypervisor of this clock.
        let flusher = spawn(move || unsafe { flushes.flush_all(walker) });
        xen.entry.store(0, Relaxed);
        let gone = clock.now();
        if clock.covers(gone) {
            assert_eq!(xen.remembered.load(Relaxed), 0, "a flush that did not see the store");
        }
        assert_eq!(join(flusher), Ok(()));
    });
}

/// Who has made a flush may count on it, whoever else makes one at the same time and is over sooner
/// or later.
#[test]
fn one_s_own_flush_covers_what_came_before() {
    explore(3, || {
        let xen = Walker { entry: AtomicU64::new(0), remembered: AtomicU64::new(0) };
        let (xen, clock) = (Lasting::new(xen), Lasting::new(FlushClock::translated()));
        let (walker, flushes) = (xen.get(), clock.get());
        let make = move || {
            let before = flushes.now();
            // SAFETY: the walker is the only hypervisor of this clock.
            let flushed = unsafe { flushes.flush_all(walker) };
            assert_eq!(flushed, Ok(()));
            assert!(flushes.covers(before));
        };
        let other = spawn(make);
        make();
        join(other);
    });
}

// SAFETY: flushes, and refuses everything else.
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
