//! Which flush of all vCPUs covers which removed mappings.
//!
//! Code that removes a mapping reads the time ([`FlushClock::now`]) after it. As soon as a flush that
//! *began* later is complete ([`FlushClock::covers`]), no vCPU remembers the mapping. Only a flush
//! advances the clock. So one flush serves all mappings that were removed before it, whichever code
//! asked for it.

use core::sync::atomic::Ordering::SeqCst;

use hypercall::ops::{HvmOp, MmuExtOp};
use hypercall::{DomId, Xen, XenErrno};

use crate::sync::{AtomicU64, const_fn, fence};

/// The hypercall that flushes every vCPU of the domain.
///
/// The guest sends no IPI for it, because Xen knows which processors may hold stale entries
/// ([F4](crate::rules#F4)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushBy {
    /// `MMUEXT_TLB_FLUSH_ALL`, in a PV guest. Xen flushes every processor that may hold translations of
    /// the domain (`dirty_cpumask`; `do_mmuext_op` in `x86/mm.c`), and waits for them.
    MmuExt,
    /// `HVMOP_flush_tlbs`, in a translated guest. Xen gives every vCPU a new tag for its translations.
    /// It makes each running vCPU leave guest mode, and waits for that (`flush_tlb` in
    /// `x86/mm/hap/hap.c`, `on_selected_cpus`). Any other vCPU uses the new tag when it runs again.
    HvmOp,
}

/// Counts the flushes of all vCPUs of this domain.
#[derive(Debug)]
pub struct FlushClock {
    by: FlushBy,
    /// The number of flushes that have begun. Each flush is known by its place in this count.
    begun: AtomicU64,
    /// The highest place of a flush that is complete.
    complete: AtomicU64,
}

/// A time between two flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushTime(u64);

impl FlushClock {
    const_fn! {
        /// Returns the clock of a PV guest.
        pub const fn pv() -> Self {
            Self { by: FlushBy::MmuExt, begun: AtomicU64::new(0), complete: AtomicU64::new(0) }
        }
    }

    const_fn! {
        /// Returns the clock of a translated guest (PVH).
        pub const fn translated() -> Self {
            Self { by: FlushBy::HvmOp, begun: AtomicU64::new(0), complete: AtomicU64::new(0) }
        }
    }

    /// Returns the time. Every flush that begins after this call is later.
    pub fn now(&self) -> FlushTime {
        // A plain store to a page table may still be in this processor's store buffer, from where a
        // flush that begins after the load does not see it. The other half is in `flush_all`.
        fence(SeqCst);
        FlushTime(self.begun.load(SeqCst))
    }

    /// Returns true if a flush that began after `time` is complete.
    pub fn covers(&self, time: FlushTime) -> bool {
        self.complete.load(SeqCst) > time.0
    }

    /// Asks Xen to flush the whole TLB of every vCPU of the domain.
    ///
    /// Makes one hypercall, and returns when the flush is complete. It takes no lock.
    ///
    /// # Safety
    /// `xen` is the hypervisor of the guest whose clock this is. Otherwise the clock would count a
    /// flush that Xen did not make.
    ///
    /// # Errors
    /// Xen's error. The clock then does not advance.
    pub unsafe fn flush_all<X: Xen>(&self, xen: &X) -> Result<(), XenErrno> {
        let begun = self.begin();
        match self.by {
            FlushBy::MmuExt => {
                let mut done = 0;
                // SAFETY: a flush changes no mapping.
                unsafe { xen.mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut done, DomId::SELF) }?;
            }
            FlushBy::HvmOp => {
                xen.hvm_op(HvmOp::FlushTlbs)?;
            }
        }
        self.complete(begun);
        Ok(())
    }

    /// Returns the operation by which a PV guest flushes, for a multicall. A translated guest has none.
    pub(crate) const fn operation(&self) -> Option<MmuExtOp> {
        match self.by {
            FlushBy::MmuExt => Some(MmuExtOp::tlb_flush_all()),
            FlushBy::HvmOp => None,
        }
    }

    /// Notes that a flush begins. It covers what was removed before.
    pub(crate) fn begin(&self) -> BegunFlush {
        let place = self.begun.fetch_add(1, SeqCst) + 1;
        fence(SeqCst);
        BegunFlush(place)
    }

    /// Notes that Xen has made the flush. If Xen refuses it, the value is dropped instead.
    pub(crate) fn complete(&self, BegunFlush(place): BegunFlush) {
        // A flush that began later may be complete already. It covers all that this one does.
        self.complete.fetch_max(place, SeqCst);
    }
}

/// A flush that has begun, by its place in the count.
#[derive(Debug)]
pub(crate) struct BegunFlush(u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flush_that_began_later_covers() {
        let clock = FlushClock::pv();
        let before = clock.now();
        assert!(!clock.covers(before));
        // A flush begins. It does not cover mappings that are removed from now on.
        let first = clock.begun.fetch_add(1, SeqCst) + 1;
        let meanwhile = clock.now();
        clock.complete.fetch_max(first, SeqCst);
        assert!(clock.covers(before) && !clock.covers(meanwhile));
        // The next two end in the other order.
        let second = clock.begun.fetch_add(1, SeqCst) + 1;
        let third = clock.begun.fetch_add(1, SeqCst) + 1;
        clock.complete.fetch_max(third, SeqCst);
        assert!(clock.covers(meanwhile));
        clock.complete.fetch_max(second, SeqCst);
        assert!(clock.covers(FlushTime(second)) && !clock.covers(clock.now()));
    }
}
