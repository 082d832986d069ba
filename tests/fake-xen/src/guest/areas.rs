//! Virtual areas: an address range with its own first-level tables, and accesses in it.

#![expect(unsafe_code, reason = "the trait is unsafe to implement, and lent memory is claimed")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hypercall::{Gfn, Pfn, VirtAddr};
use xen_contig::addr::MachineAddr;
use xen_contig::paging::FlushClock;
use xen_contig::sync::AtomicU64;
use xen_contig::vmap::{
    Area, AreaEntry, AreaTables, Budget, Protection, UnmapMode, Vmap, VmapError, VmapMemory,
    VmapSizes,
};

use super::FakeGuest;
use crate::machine::INVALID_M2P;
use crate::xen::FakeXen;

/// The size and the mode of a guest's virtual areas.
#[derive(Clone, Copy, Debug)]
pub struct AreaConfig {
    /// Pages of the address range, rounded up to a multiple of 512.
    pub pages: u32,
    /// Records of areas.
    pub areas: u32,
    /// When entries are removed.
    pub mode: UnmapMode,
    /// How much may stay mapped after it was unmapped lazily.
    pub budget: Budget,
}

impl AreaConfig {
    /// Lazy, with one record for each page. All pages may stay mapped.
    pub const fn lazy(pages: u32) -> Self {
        let budget = Budget { pages, areas: pages };
        Self { pages, areas: pages, mode: UnmapMode::Lazy, budget }
    }

    /// The same, sync.
    pub const fn sync(pages: u32) -> Self {
        Self { mode: UnmapMode::Sync, ..Self::lazy(pages) }
    }

    /// The number of first-level tables.
    pub(super) const fn tables(&self) -> u64 {
        self.pages.div_ceil(512) as u64
    }
}

/// The tables of the areas of a [`FakeGuest`].
#[derive(Debug)]
pub struct FakeAreas {
    xen: FakeXen,
    flushes: Arc<FlushClock>,
    /// Empty in a translated guest.
    p2m: Arc<[AtomicU64]>,
    frames: u64,
    base: u64,
    pages: u32,
    /// The entries of a translated guest. The model has no page tables for it.
    plain: Vec<AtomicU64>,
}

// SAFETY: the builder reserved the address range and its tables for this value.
unsafe impl AreaTables for FakeAreas {
    type Xen = FakeXen;

    fn xen(&self) -> &FakeXen {
        &self.xen
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }

    fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
        match self.p2m.get(pfn.number() as usize) {
            Some(entry) => match entry.load(Relaxed) {
                INVALID_M2P => None,
                mfn => Some(Gfn::new(mfn)),
            },
            None if self.p2m.is_empty() && pfn.number() < self.frames => {
                Some(Gfn::new(pfn.number()))
            }
            None => None,
        }
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::new(self.base)
    }

    fn pages(&self) -> u32 {
        self.pages
    }

    fn entry(&self, page: u32) -> AreaEntry<'_> {
        match self.plain.get(page as usize) {
            Some(entry) => AreaEntry::plain(entry),
            None => {
                let page = (self.base >> 12) + u64::from(page);
                let entry = self.xen.with(|machine| machine.entry_of(page));
                AreaEntry::validated(MachineAddr::new(entry.expect("a page of the stretch")))
            }
        }
    }
}

impl FakeAreas {
    /// What the entry of a page of a translated guest holds; `None` in a PV guest.
    pub fn plain_entry(&self, page: u32) -> Option<u64> {
        Some(self.plain.get(page as usize)?.load(Relaxed))
    }
}

/// The areas of a new guest.
pub(super) fn make(guest: &FakeGuest, config: AreaConfig) -> Vmap<'static, FakeAreas> {
    let AreaConfig { areas, mode, budget, .. } = config;
    let pages = config.tables() as u32 * 512;
    let plain = if guest.p2m.is_empty() { pages } else { 0 };
    let tables = FakeAreas {
        xen: guest.xen.clone(),
        flushes: guest.flushes.clone(),
        p2m: guest.p2m.clone(),
        frames: guest.frames,
        base: guest.layout.areas,
        pages,
        plain: (0..plain).map(|_| AtomicU64::new(0)).collect(),
    };
    let sizes = VmapSizes { frames: guest.frames as u32, pages, areas };
    let block = vec![0_u64; sizes.bytes().div_ceil(8)].leak();
    // SAFETY: the block is allocated here and leaked, so nothing else uses it, and it never moves.
    let memory = unsafe { VmapMemory::place(block.as_mut_ptr().cast(), sizes) };
    Vmap::new(tables, memory, mode, budget).expect("memory for as many pages")
}

impl FakeGuest {
    /// The guest's virtual areas.
    ///
    /// # Panics
    /// If the guest was built without areas.
    pub fn areas(&self) -> &Vmap<'static, FakeAreas> {
        self.areas.as_ref().expect("a guest built with areas")
    }

    /// Maps frames of the guest into a virtual area.
    ///
    /// Safe, because a model's frames hold no Rust object, and because the model stops a test that
    /// accesses frames which a transaction holds.
    ///
    /// # Errors
    /// Those of [`Vmap::vmap`].
    pub fn vmap<F>(
        &self,
        frames: F,
        protection: Protection,
        name: &'static str,
    ) -> Result<Area, VmapError>
    where
        F: IntoIterator<Item = Pfn>,
        F::IntoIter: Clone,
    {
        // SAFETY: the machine frames are bytes of the model, so an entry that a transaction misses
        // shows in the test and harms nothing else.
        unsafe { self.areas().vmap(frames, protection, name) }
    }

    /// Reads a word at any address of a PV guest, as a vCPU does.
    pub fn read_at(&self, vcpu: u32, address: VirtAddr) -> u64 {
        let (page, word) = (address.as_u64() >> 12, address.as_u64() % 4096 / 8);
        self.xen.turn();
        self.xen.with(|machine| {
            let mfn = machine.translate(vcpu as usize, page, false);
            mfn.map_or(0, |mfn| machine.frames[mfn as usize].content.read(word as usize))
        })
    }

    /// Writes a word at any address of a PV guest, as a vCPU does.
    pub fn write_at(&self, vcpu: u32, address: VirtAddr, value: u64) {
        let (page, word) = (address.as_u64() >> 12, address.as_u64() % 4096 / 8);
        self.xen.turn();
        self.xen.with(|machine| {
            if let Some(mfn) = machine.translate(vcpu as usize, page, true) {
                machine.frames[mfn as usize].content.write(word as usize, value);
            }
        });
    }

    /// Whether the tables map an address.
    pub fn is_mapped(&self, address: VirtAddr) -> bool {
        self.xen.with(|machine| {
            let entry = machine.entry_of(address.as_u64() >> 12);
            entry.is_some_and(|entry| machine.read_entry(entry).is_present())
        })
    }
}
