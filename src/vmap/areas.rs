//! Maps frames into virtual areas, and unmaps them.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::Xen;
use hypercall::ops::SchedOp;

use super::addresses::AddressPool;
use super::area::Area;
use super::error::VmapError;
use super::options::{Budget, Flush, Protection, UnmapMode};
use super::registry::AreaRegistry;
use super::report::{Alias, Purged, VmapStats};
use super::storage::VmapMemory;
use super::tables::AreaTables;
use super::writer::EntryWriter;
use crate::addr::{Gfn, Pfn};
use crate::paging::Holder;
use crate::sync::{AtomicBool, Mutex};

/// The virtual areas of a guest.
///
/// One lock guards the registry of the areas. It does not mask interrupts, so no method may run in an
/// interrupt handler. The lock is never held during a hypercall.
#[derive(Debug)]
pub struct Vmap<'m, T> {
    pub(super) tables: T,
    sync: AtomicBool,
    budget: Budget,
    /// Frames that the alias index has room for.
    frames: u64,
    pub(super) registry: Mutex<AreaRegistry<'m>>,
}

impl<'m, T: AreaTables> Vmap<'m, T> {
    /// Creates the registry of areas in the stretch of addresses that `tables` describes. There are no
    /// areas yet. Makes no hypercall.
    ///
    /// # Errors
    /// [`VmapError::WrongMemory`] if the memory was prepared for another number of pages.
    pub fn new(
        tables: T,
        memory: VmapMemory<'m>,
        mode: UnmapMode,
        budget: Budget,
    ) -> Result<Self, VmapError> {
        let frames = memory.heads.len() as u64;
        let registry = Mutex::new(AreaRegistry::new(memory, tables.pages())?);
        Ok(Self {
            tables,
            sync: AtomicBool::new(mode == UnmapMode::Sync),
            budget,
            frames,
            registry,
        })
    }

    /// The page tables of the stretch of addresses.
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// When the entries of unmapped areas are dropped.
    pub fn mode(&self) -> UnmapMode {
        if self.sync.load(Relaxed) { UnmapMode::Sync } else { UnmapMode::Lazy }
    }

    /// Changes when entries are dropped. Entries that are left over already stay.
    pub fn set_mode(&self, mode: UnmapMode) {
        self.sync.store(mode == UnmapMode::Sync, Relaxed);
    }

    /// The limit on leftovers.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// How many areas and pages there are. Makes no hypercall.
    pub fn stats(&self) -> VmapStats {
        self.registry.lock().stats()
    }

    /// Calls `f` with every alias of a frame. Makes no hypercall.
    ///
    /// The lock of the areas is held until `f` was called with the last alias, so `f` must not call a
    /// method of this `Vmap`. The hold takes one step for each alias of the frame.
    pub fn aliases(&self, pfn: Pfn, mut f: impl FnMut(Alias)) {
        let registry = self.registry.lock();
        for page in registry.index.aliases(pfn) {
            let record = registry.record(registry.index.area(page));
            let address = self.tables.address(page);
            f(Alias { address, name: record.name(), live: record.is_live() });
        }
    }

    /// The area that maps a frame, live areas first. Makes no hypercall.
    pub fn holder(&self, pfn: Pfn) -> Option<Holder> {
        let mut holder = None;
        self.aliases(pfn, |Alias { address, name, live }| match (live, holder) {
            (true, _) => holder = Some(Holder::Area { address, name }),
            (false, None) => holder = Some(Holder::Leftover { address, name }),
            (false, Some(_)) => {}
        });
        holder
    }

    /// Maps frames side by side, followed by an unmapped guard page.
    ///
    /// `name` names the owner in the error that an exchange of these frames returns. A frame can be in
    /// any number of areas.
    ///
    /// A PV guest makes one `mmu_update` per 512 pages. If no addresses are free, leftovers are purged
    /// and flushed first, so the call may sleep.
    ///
    /// # Safety
    /// From the call until the area is unmapped, the frames belong to the caller, or to an owner who
    /// lends them ([M1](crate::rules#M1)). So no transaction holds or takes one of them while this call
    /// runs: it would miss an entry that is written after its purge ([M2](crate::rules#M2)).
    ///
    /// Once the area exists, an exchange of the frames is refused and names it.
    ///
    /// # Errors
    /// Nothing is mapped then. [`VmapError::Empty`], [`VmapError::TooLarge`],
    /// [`VmapError::NoSuchFrame`] and [`VmapError::NotPopulated`] name what is wrong with the request;
    /// [`VmapError::NoSpace`], that no addresses are free; [`VmapError::Refused`],
    /// [`VmapError::NotDropped`] and [`VmapError::FlushRefused`], what Xen refused.
    pub unsafe fn vmap<F>(
        &self,
        frames: F,
        protection: Protection,
        name: &'static str,
    ) -> Result<Area, VmapError>
    where
        F: IntoIterator<Item = Pfn>,
        F::IntoIter: Clone,
    {
        let frames = frames.into_iter();
        let pages = self.count(frames.clone())?;
        frames.clone().take(pages as usize).try_for_each(|pfn| self.gfn(pfn).map(drop))?;
        let area = self.open(pages, name)?;
        match self.fill(&area, frames, protection) {
            Ok(()) => {
                self.registry.lock().set_live(&area);
                Ok(area)
            }
            Err(error) => {
                let id = area.id();
                self.registry.lock().abandon(area, self.tables.flushes());
                // An entry that Xen does not drop stays registered as a leftover for the next purge.
                let _refused_again = self.purge_area(id, &mut Purged::default());
                Err(error)
            }
        }
    }

    /// Counts the frames of a request. An area must be able to hold them.
    fn count(&self, frames: impl Iterator<Item = Pfn>) -> Result<u32, VmapError> {
        let limit = AddressPool::largest(self.tables.pages());
        // An iterator may be endless, so the count stops above the limit.
        let at_least = frames.size_hint().0;
        let counted = frames.take(limit as usize + 1).count();
        match u32::try_from(counted) {
            Ok(0) => Err(VmapError::Empty),
            Ok(pages) if pages <= limit => Ok(pages),
            _ => Err(VmapError::TooLarge { pages: counted.max(at_least), limit }),
        }
    }

    /// The number that maps a frame in an entry.
    fn gfn(&self, pfn: Pfn) -> Result<Gfn, VmapError> {
        if pfn.number() >= self.frames {
            return Err(VmapError::NoSuchFrame { pfn, frames: self.frames });
        }
        self.tables.gfn(pfn).ok_or(VmapError::NotPopulated { pfn })
    }

    /// Unmaps an area. Its entries are dropped at once or later, as [`mode`](Self::mode) decides.
    ///
    /// The owner must not access the area's addresses any more. Its frames have no user but their
    /// owner, even while entries are left.
    ///
    /// [`UnmapMode::Lazy`] makes no hypercall unless the budget is exceeded. [`UnmapMode::Sync`] makes one
    /// `mmu_update` per 512 pages and one flush, so the call may sleep.
    ///
    /// # Errors
    /// [`VmapError::UnknownArea`] returns an area of another `Vmap`, which stays mapped. With every
    /// other error the area is unmapped, but entries could not be dropped: the next purge tries again.
    pub fn vunmap(&self, area: Area) -> Result<(), VmapError> {
        // Areas of another stretch can have the same numbers.
        if area.address() != self.tables.address(area.page_numbers().start) {
            return Err(VmapError::UnknownArea(area));
        }
        let id = area.id();
        let is_over_budget = {
            let mut registry = self.registry.lock();
            registry.close(area).map_err(VmapError::UnknownArea)?;
            registry.is_over(self.budget)
        };
        let mut purged = Purged::default();
        match self.mode() {
            UnmapMode::Sync => {
                self.purge_area(id, &mut purged)?;
                self.flush(&mut purged)
            }
            UnmapMode::Lazy if is_over_budget => self.purge_all(Flush::Inhibit).map(drop),
            UnmapMode::Lazy => Ok(()),
        }
    }

    /// Takes addresses and a record for an area, and frees some if it must.
    fn open(&self, pages: u32, name: &'static str) -> Result<Area, VmapError> {
        loop {
            let stats = {
                let mut registry = self.registry.lock();
                let more = registry.reuse(self.tables.flushes());
                let address = |page| self.tables.address(page);
                if let Some(area) = registry.open(pages, name, address) {
                    return Ok(area);
                }
                if more {
                    continue;
                }
                registry.stats()
            };
            // Another vCPU may take what this one frees. So the loop ends only when there is nothing
            // more to free.
            let VmapStats { live, leftover, retired, free_pages } = stats;
            if retired.areas > 0 {
                self.flush(&mut Purged::default())?;
            } else if leftover.areas > 0 {
                let purged = self.purge_all(Flush::Inhibit)?;
                if purged.areas == 0 {
                    // Another vCPU, which may need this processor, is dropping the leftovers.
                    let _never_refused = self.tables.xen().sched_op(SchedOp::Yield);
                }
            } else {
                return Err(VmapError::NoSpace { pages, free: free_pages, areas: live.areas });
            }
        }
    }

    /// Writes the entries of a new area.
    fn fill(
        &self,
        area: &Area,
        frames: impl Iterator<Item = Pfn> + Clone,
        protection: Protection,
    ) -> Result<(), VmapError> {
        let mut writer = EntryWriter::new(&self.tables);
        for (page, pfn) in area.page_numbers().zip(frames.clone()) {
            // The iterator may yield other frames than when it was counted, so check again.
            let gfn = self.gfn(pfn)?;
            // Register the page first: a purge would never find an entry that is not registered.
            self.registry.lock().link(page, pfn, area.id());
            // SAFETY: the area is new and its owner does not have it yet, so no code uses its addresses.
            let written = unsafe { writer.map(page, gfn, protection.flags()) };
            written.map_err(|errno| {
                let pfn = frames.clone().nth(writer.done() as usize).unwrap_or(pfn);
                VmapError::Refused { pfn, errno }
            })?;
        }
        // SAFETY: the owner still does not have the area, so no code uses its addresses.
        unsafe { writer.issue() }.map_err(|errno| {
            let pfn = frames.clone().nth(writer.done() as usize).unwrap_or(Pfn::new(0));
            VmapError::Refused { pfn, errno }
        })
    }

    /// Makes one flush of all vCPUs, and frees the addresses that waited for it.
    pub(super) fn flush(&self, purged: &mut Purged) -> Result<(), VmapError> {
        let clock = self.tables.flushes();
        // SAFETY: `AreaTables` promises that the clock is the one of this domain.
        let flushed = unsafe { clock.flush_all(self.tables.xen()) };
        flushed.map_err(|errno| VmapError::FlushRefused { errno })?;
        purged.flushed = true;
        while self.registry.lock().reuse(clock) {}
        Ok(())
    }
}
