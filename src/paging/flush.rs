//! Which flush of all vCPUs covers what.
//!
//! Whoever has taken a mapping away asks the clock for the time ([`FlushClock::now`]) and may count
//! on no vCPU remembering the mapping once a flush that *began* later is over
//! ([`FlushClock::covers`]). Flushes count themselves: there is no other way to make the clock
//! advance than to have Xen flush. So one flush, made by whoever needs it first, serves all that
//! was taken away before it, and nobody has to know of anybody else.

use core::sync::atomic::Ordering::SeqCst;

use hypercall::ops::{HvmOp, MmuExtOp};
use hypercall::{DomId, Xen, XenErrno};

use crate::sync::{AtomicU64, const_fn, fence};

/// How Xen is asked to flush every vCPU of the domain. The guest sends no IPI for it: Xen knows
/// which processors may hold stale entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushBy {
    /// `MMUEXT_TLB_FLUSH_ALL`, of a PV guest: Xen flushes every processor that still holds anything of
    /// the domain's (`dirty_cpumask`; `do_mmuext_op` in `x86/mm.c`), and waits for them.
    MmuExt,
    /// `HVMOP_flush_tlbs`, of a translated guest. Xen gives every vCPU a new tag for its translations
    /// and has those that run leave guest mode; it goes on when all have (`flush_tlb` in
    /// `x86/mm/hap/hap.c`, `on_selected_cpus`). Those that do not run find the new tag when they do.
    HvmOp,
}

/// The flushes of all vCPUs of this domain, counted.
#[derive(Debug)]
pub struct FlushClock {
    by: FlushBy,
    /// Flushes that have begun.
    begun: AtomicU64,
    /// The latest of those that are over; flushes are told apart by their place in `begun`.
    over: AtomicU64,
}

/// A time between two flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlushTime(u64);

impl FlushClock {
    const_fn! {
        /// The clock of a PV guest.
        pub const fn pv() -> Self {
            Self { by: FlushBy::MmuExt, begun: AtomicU64::new(0), over: AtomicU64::new(0) }
        }
    }

    const_fn! {
        /// The clock of a translated guest (PVH).
        pub const fn translated() -> Self {
            Self { by: FlushBy::HvmOp, begun: AtomicU64::new(0), over: AtomicU64::new(0) }
        }
    }

    /// The time now: flushes that begin from here on come later.
    pub fn now(&self) -> FlushTime {
        // A plain store to a page table may still be in this processor's store buffer, from where a
        // flush that begins after the load does not see it. The other half is in `flush_all`.
        fence(SeqCst);
        FlushTime(self.begun.load(SeqCst))
    }

    /// Whether a flush that began after `time` is over.
    pub fn covers(&self, time: FlushTime) -> bool {
        self.over.load(SeqCst) > time.0
    }

    /// Has Xen drop every translation that any vCPU of the domain holds.
    ///
    /// # Errors
    /// Xen's; then the clock stands where it stood.
    pub fn flush_all<X: Xen>(&self, xen: &X) -> Result<(), XenErrno> {
        let place = self.begun.fetch_add(1, SeqCst) + 1;
        fence(SeqCst);
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
        // A flush that began later may be over sooner: it covers all that this one does.
        self.over.fetch_max(place, SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flush_that_began_later_covers() {
        let clock = FlushClock::pv();
        let before = clock.now();
        assert!(!clock.covers(before));
        // One begins: what is taken away from now on is not covered by it.
        let first = clock.begun.fetch_add(1, SeqCst) + 1;
        let meanwhile = clock.now();
        clock.over.fetch_max(first, SeqCst);
        assert!(clock.covers(before) && !clock.covers(meanwhile));
        // The next two end in the other order.
        let second = clock.begun.fetch_add(1, SeqCst) + 1;
        let third = clock.begun.fetch_add(1, SeqCst) + 1;
        clock.over.fetch_max(third, SeqCst);
        assert!(clock.covers(meanwhile));
        clock.over.fetch_max(second, SeqCst);
        assert!(clock.covers(FlushTime(second)) && !clock.covers(clock.now()));
    }
}
