//! Drops the entries that remain of unmapped areas.

use core::ops::Range;

use super::area::AreaId;
use super::areas::Vmap;
use super::error::VmapError;
use super::options::Flush;
use super::registry::{AreaRegistry, Claimed};
use super::report::Purged;
use super::tables::AreaTables;
use super::writer::EntryWriter;
use crate::frames::FrameRun;
use crate::paging::{FrameInUse, Holder};

impl<T: AreaTables> Vmap<'_, T> {
    /// Drops the leftover aliases of a run's frames and no others, 512 per hypercall.
    ///
    /// It takes a constant number of steps for each frame and for each alias. The lock of the areas is
    /// held for at most 512 frames and 513 aliases at a time.
    ///
    /// With [`Flush::Inhibit`] the guest asks for no flush ([F1](crate::rules#F1)). TLBs may remember the
    /// mappings until a later flush of all vCPUs, such as the one of the transaction that follows
    /// ([F2](crate::rules#F2), [F5](crate::rules#F5)).
    ///
    /// It may sleep: a PV guest makes hypercalls (`mmu_update`, and `mmuext_op` with [`Flush::Now`]). It
    /// must not run in an interrupt handler, because it takes the lock of the areas.
    ///
    /// # Errors
    /// [`VmapError::InUse`] if a live area maps one of the frames; that area is left alone.
    /// [`VmapError::NotDropped`] and [`VmapError::FlushRefused`] if Xen refuses. Aliases that were
    /// dropped before the error stay dropped.
    pub fn purge(&self, run: &FrameRun, flush: Flush) -> Result<Purged, VmapError> {
        let first = run.first().number();
        let mut frames = first..first + run.frames();
        let mut purged = Purged::default();
        while !frames.is_empty() {
            let mut claimed = Claimed::new();
            self.claim(&mut frames, &mut claimed)?;
            self.drop_claimed(&claimed, &mut purged)?;
        }
        self.finish(flush, purged)
    }

    /// Drops all leftover aliases, 512 per hypercall. It may sleep, as [`purge`](Self::purge) may.
    ///
    /// # Errors
    /// [`VmapError::NotDropped`] and [`VmapError::FlushRefused`] if Xen refuses. Aliases that were
    /// dropped before the error stay dropped.
    pub fn purge_all(&self, flush: Flush) -> Result<Purged, VmapError> {
        // Areas that are unmapped meanwhile go to the end of the list. This call does not wait for them.
        let mut to_do = self.stats().leftover.pages as usize;
        let mut purged = Purged::default();
        while to_do > 0 {
            let mut claimed = Claimed::new();
            let more = self.registry.lock().claim_leftovers(&mut claimed);
            if claimed.is_empty() && !more {
                break;
            }
            self.drop_claimed(&claimed, &mut purged)?;
            to_do = to_do.saturating_sub(claimed.len());
        }
        self.finish(flush, purged)
    }

    /// Does what an exchange of the run needs: [`purge`](Self::purge) without a flush.
    ///
    /// The result is the one that [`GuestMemory::purge`](crate::paging::GuestMemory::purge) returns.
    ///
    /// # Errors
    /// A frame that an area still maps, and the area.
    pub fn vacate(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        self.purge(run, Flush::Inhibit).map(|_| ()).map_err(|error| error.held(run.first()))
    }

    /// Drops the leftover entries of an area.
    pub(super) fn purge_area(&self, id: AreaId, purged: &mut Purged) -> Result<(), VmapError> {
        loop {
            let mut claimed = Claimed::new();
            let more = self.registry.lock().claim_area(id, &mut claimed);
            if claimed.is_empty() && !more {
                return Ok(());
            }
            self.drop_claimed(&claimed, purged)?;
        }
    }

    fn finish(&self, flush: Flush, mut purged: Purged) -> Result<Purged, VmapError> {
        if flush == Flush::Now {
            self.flush(&mut purged)?;
        }
        Ok(purged)
    }

    /// Drops the entries of claimed pages without the lock, then gives up the claims.
    fn drop_claimed(&self, claimed: &Claimed, purged: &mut Purged) -> Result<(), VmapError> {
        let mut remaining = &claimed[..];
        while !remaining.is_empty() {
            let mut writer = EntryWriter::new(&self.tables);
            // SAFETY: only pages of leftover areas are claimed, and the owners of those unmapped them.
            // A claimed page belongs to no new area, because its area is not retired before the claim
            // is given up. Both hold until `settle` below, after the batch was issued.
            let written = unsafe {
                remaining
                    .iter()
                    .try_for_each(|page| writer.unmap(*page))
                    .and_then(|()| writer.issue())
            };
            let done = writer.done() as usize;
            let mut registry = self.registry.lock();
            let refused = written.err().and_then(|errno| Some((*remaining.get(done)?, errno)));
            let (settled, rest, error) = match refused {
                None => (remaining, &[][..], None),
                Some((page, errno)) if registry.index.is_linked(page) => {
                    let entry = self.held(&registry, page);
                    (remaining, &[][..], Some(VmapError::NotDropped { entry, errno }))
                }
                // Another vCPU dropped the entry meanwhile, so this is not an error. The entries after
                // it were not written yet.
                Some(_) => {
                    let (settled, rest) = remaining.split_at(done + 1);
                    (settled, rest, None)
                }
            };
            registry.settle(settled, done, self.tables.flushes(), purged);
            remaining = rest;
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    fn claim(&self, frames: &mut Range<u64>, claimed: &mut Claimed) -> Result<(), VmapError> {
        let mut registry = self.registry.lock();
        match registry.claim_frames(frames, claimed) {
            Ok(()) => Ok(()),
            Err(page) => Err(VmapError::InUse(self.held(&registry, page))),
        }
    }

    /// The frame that a page in the index maps, and the area that maps it.
    fn held(&self, registry: &AreaRegistry<'_>, page: u32) -> FrameInUse {
        let record = registry.record(registry.index.area(page));
        let (address, name) = (self.tables.address(page), record.name());
        let holder = match record.is_live() {
            true => Holder::Area { address, name },
            false => Holder::Leftover { address, name },
        };
        FrameInUse { pfn: registry.index.frame(page), holder }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::iter;
    use std::vec::Vec;

    use fake_xen::{FakeXen, GuestBuilder};
    use hypercall::VirtAddr;

    use super::*;
    use crate::addr::{Gfn, Pfn};
    use crate::paging::FlushClock;
    use crate::sync::AtomicU64;
    use crate::vmap::{AreaEntry, Budget, Protection, UnmapMode, VmapMemory, VmapSizes, VmapStats};

    const FRAMES: u32 = 1 << 16;

    /// The tables of a translated guest, which writes its entries itself.
    struct Tables {
        xen: FakeXen,
        flushes: FlushClock,
        level1: Vec<AtomicU64>,
    }

    // SAFETY: nothing ever uses the addresses: the tables are in force nowhere.
    unsafe impl AreaTables for Tables {
        type Xen = FakeXen;

        fn xen(&self) -> &FakeXen {
            &self.xen
        }

        fn flushes(&self) -> &FlushClock {
            &self.flushes
        }

        fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
            Some(Gfn::new(pfn.number()))
        }

        fn base(&self) -> VirtAddr {
            VirtAddr::new(1 << 40)
        }

        fn pages(&self) -> u32 {
            self.level1.len() as u32
        }

        fn entry(&self, page: u32) -> AreaEntry<'_> {
            AreaEntry::plain(&self.level1[page as usize])
        }
    }

    fn areas(pages: u32) -> Vmap<'static, Tables> {
        let guest = GuestBuilder::new(16).translated().build();
        let level1 = (0..pages).map(|_| AtomicU64::new(0)).collect();
        let tables = Tables { xen: guest.xen().clone(), flushes: FlushClock::translated(), level1 };
        let sizes = VmapSizes { frames: FRAMES, pages, areas: 8 };
        let block = Box::leak(std::vec![0_u64; sizes.bytes().div_ceil(8)].into_boxed_slice());
        // SAFETY: the block is as long as it must be, aligned to 8 bytes, and leaked here.
        let memory = unsafe { VmapMemory::place(block.as_mut_ptr().cast(), sizes) };
        let budget = Budget { pages, areas: 8 };
        Vmap::new(tables, memory, UnmapMode::Lazy, budget).unwrap()
    }

    /// Maps the frames and unmaps them again.
    fn leave(areas: &Vmap<'_, Tables>, frames: impl Iterator<Item = u64> + Clone) {
        // SAFETY: no frame of the model is accessed.
        let area = unsafe { areas.vmap(frames.map(Pfn::new), Protection::ReadOnly, "left") };
        areas.vunmap(area.unwrap()).unwrap();
    }

    fn run(first: u64, frames: u64) -> FrameRun {
        // SAFETY: no frame of the model is accessed.
        unsafe { FrameRun::new(Pfn::new(first), frames) }
    }

    /// Returns how often the index was read while `act` ran.
    fn reads(areas: &Vmap<'_, Tables>, act: impl FnOnce()) -> u32 {
        let now = || areas.registry.lock().index.reads.get();
        let before = now();
        act();
        now() - before
    }

    #[test]
    fn a_purge_is_linear_in_the_aliases_of_a_frame() {
        for aliases in [1 << 10, 1 << 13, 1 << 16] {
            let areas = areas(aliases + 8);
            leave(&areas, iter::repeat_n(3, aliases as usize));
            let steps = reads(&areas, || {
                let purged = areas.purge(&run(3, 1), Flush::Inhibit).unwrap();
                assert_eq!(purged, Purged { aliases, areas: 1, flushed: false });
            });
            assert!(steps <= 7 * aliases, "{aliases} aliases took {steps} steps");
        }
    }

    #[test]
    fn a_purge_of_everything_is_linear_in_the_pages_of_the_areas() {
        for pages in [1 << 10, 1 << 13, 1 << 16] {
            let areas = areas(pages + 8);
            leave(&areas, 0..u64::from(pages));
            // One page in 1,024 remains.
            for first in (0..u64::from(pages)).step_by(1024) {
                areas.purge(&run(first + 1, 1023), Flush::Inhibit).unwrap();
            }
            let remaining = pages / 1024;
            let steps = reads(&areas, || {
                let purged = areas.purge_all(Flush::Now).unwrap();
                assert_eq!(purged, Purged { aliases: remaining, areas: 1, flushed: true });
            });
            assert!(steps <= 2 * pages + 7 * remaining, "{pages} pages took {steps} steps");
            assert_eq!(areas.stats(), VmapStats { free_pages: pages + 7, ..VmapStats::default() });
        }
    }

    #[test]
    fn a_claim_visits_a_bounded_number_of_frames_and_pages() {
        let areas = areas(FRAMES);
        leave(&areas, 100..20_100);
        // Only the first and the last page of this area remain.
        areas.purge(&run(101, 19_998), Flush::Inhibit).unwrap();
        leave(&areas, iter::repeat_n(5, 20_000));

        let mut registry = areas.registry.lock();
        let mut steps_of = |act: &mut dyn FnMut(&mut AreaRegistry<'_>)| {
            let before = registry.index.reads.get();
            act(&mut registry);
            registry.index.reads.get() - before
        };
        let mut claimed = Claimed::new();
        let steps = steps_of(&mut |registry| assert!(registry.claim_leftovers(&mut claimed)));
        assert_eq!((claimed.len(), steps), (1, 4096));

        let mut claimed = Claimed::new();
        let mut frames = 0..u64::from(FRAMES);
        let steps = steps_of(&mut |registry| {
            registry.claim_frames(&mut frames, &mut claimed).unwrap();
        });
        assert_eq!((frames.start, claimed.len()), (5, 512));
        assert!(steps <= 3 * 513, "{steps}");
    }

    #[test]
    fn nothing_is_claimed_of_a_run_with_a_live_area() {
        let areas = areas(64);
        leave(&areas, 8..12);
        // SAFETY: no frame of the model is accessed.
        let live = unsafe { areas.vmap([Pfn::new(11)], Protection::ReadOnly, "live") }.unwrap();
        let error = areas.purge(&run(8, 4), Flush::Inhibit).unwrap_err();
        assert!(matches!(error, VmapError::InUse(entry) if entry.pfn == Pfn::new(11)), "{error}");
        areas.vunmap(live).unwrap();
        let purged = areas.purge(&run(8, 4), Flush::Inhibit).unwrap();
        assert_eq!((purged.aliases, purged.areas), (5, 2), "no claim was left on the first area");
    }
}
