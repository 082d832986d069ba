//! The kernel's virtual areas: their addresses, page tables and budget.

use hypercall::VirtAddr;
use xen_contig::addr::{Gfn, MachineAddr, Pfn};
use xen_contig::p2m::P2m;
use xen_contig::paging::FlushClock;
use xen_contig::vmap::{AreaEntry, AreaTables, Budget, Vmap, VmapSizes};

use crate::hypervisor::Hypervisor;
use crate::layout;
use crate::paging::own_entry;
use crate::vcpu::xen;

/// The virtual areas of this kernel.
pub type Areas = Vmap<'static, AreaPageTables>;

/// The first-level tables of the virtual areas.
#[derive(Debug)]
pub struct AreaPageTables {
    p2m: &'static P2m<'static>,
    flushes: &'static FlushClock,
    pages: u32,
    /// The first frame of the run of first-level tables; `None` if the guest writes entries itself.
    level1: Option<Pfn>,
}

impl AreaPageTables {
    /// Returns the tables that the boot code made.
    ///
    /// `flushes` is the clock of the linear mapping, which counts all flushes of this domain.
    pub const fn new(
        p2m: &'static P2m<'static>,
        flushes: &'static FlushClock,
        level1: Option<Pfn>,
    ) -> Self {
        Self { p2m, flushes, pages: layout::area_pages(p2m.frames()), level1 }
    }

    /// Returns the number of frames that the guest has.
    pub const fn frames(&self) -> u64 {
        self.p2m.frames()
    }
}

/// Returns the sizes of the areas' metadata in a guest of `frames` frames.
pub const fn sizes(frames: u64) -> VmapSizes {
    let pages = layout::area_pages(frames);
    VmapSizes { frames: frames as u32, pages, areas: pages / 32 }
}

/// Returns the budget of unmapped areas that keep their entries: seven eighths of all.
pub const fn budget(sizes: VmapSizes) -> Budget {
    Budget { pages: sizes.pages / 8 * 7, areas: sizes.areas / 8 * 7 }
}

// SAFETY: the areas have a top-level slot of their own in the only address space. Its tables were
// made at boot and are never changed or freed, so `entry` is always the entry of its page.
unsafe impl AreaTables for AreaPageTables {
    type Xen = Hypervisor;

    fn xen(&self) -> &Hypervisor {
        xen()
    }

    fn flushes(&self) -> &FlushClock {
        self.flushes
    }

    fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
        self.p2m.gfn(pfn)
    }

    fn base(&self) -> VirtAddr {
        VirtAddr::new(layout::AREAS_BASE)
    }

    fn pages(&self) -> u32 {
        self.pages
    }

    fn entry(&self, page: u32) -> AreaEntry<'_> {
        let Some(first) = self.level1 else {
            // SAFETY: only a PVH guest has no run of tables here. `pvh::paging` made the
            // first-level tables of all areas, which are writable in the linear mapping. They are
            // never freed.
            return AreaEntry::plain(unsafe { own_entry(self.address(page)) });
        };
        let table = first.add(u64::from(page) / 512);
        let mfn = self.p2m.mfn(table).expect("page tables are never exchanged");
        AreaEntry::validated(MachineAddr::new(
            MachineAddr::of(mfn).get() + u64::from(page) % 512 * 8,
        ))
    }
}
