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
            self.registry.lock().claim_leftovers(&mut claimed);
            if claimed.is_empty() {
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
            self.registry.lock().claim_area(id, &mut claimed);
            if claimed.is_empty() {
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
