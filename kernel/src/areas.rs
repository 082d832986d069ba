//! The kernel's virtual areas: where they are, and who has hold of a frame that Xen does not take.

use hypercall::VirtAddr;
use spin::Mutex;
use xen_contig::addr::{Gfn, MachineAddr, Mfn, Pfn};
use xen_contig::p2m::{M2p, P2m};
use xen_contig::paging::{FlushClock, Holder, LinearMapping};
use xen_contig::vmap::{AreaEntry, AreaTables, Budget, Vmap, VmapSizes};

use super::hypervisor::{Hypervisor, xen};
use super::layout;
use super::paging::walk::{self, Visit};
use super::paging::{Linear, pvh};

/// The areas of this kernel.
pub type Areas = Vmap<'static, Tables>;

/// Their first-level tables.
#[derive(Debug)]
pub struct Tables {
    p2m: &'static P2m<'static>,
    linear: &'static Linear,
    pages: u32,
    /// Where the first-level tables of a PV guest are: a run of frames.
    level1: Option<Pfn>,
}

impl Tables {
    /// The tables that booting made.
    pub const fn new(
        p2m: &'static P2m<'static>,
        linear: &'static Linear,
        level1: Option<Pfn>,
    ) -> Self {
        Self { p2m, linear, pages: layout::area_pages(p2m.frames()), level1 }
    }
}

/// How much there is to keep books of, in a guest of that many frames.
pub const fn sizes(frames: u64) -> VmapSizes {
    let pages = layout::area_pages(frames);
    VmapSizes { frames: frames as u32, pages, areas: pages / 32 }
}

/// What may be left behind: seven eighths of everything.
pub const fn budget(sizes: VmapSizes) -> Budget {
    Budget { pages: sizes.pages / 8 * 7, areas: sizes.areas / 8 * 7 }
}

// SAFETY: the areas have a top-level slot of their own, whose tables booting made, hooked in once
// and never changed, in the only address space that there is.
unsafe impl AreaTables for Tables {
    type Xen = Hypervisor;

    fn xen(&self) -> &Hypervisor {
        xen()
    }

    fn flushes(&self) -> &FlushClock {
        self.linear.flushes()
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
            return AreaEntry::plain(pvh::area_entry(self.address(page)));
        };
        let table = first.add(u64::from(page) / 512);
        let mfn = self.p2m.mfn(table).expect("page tables are never exchanged");
        AreaEntry::validated(MachineAddr::new(
            MachineAddr::of(mfn).get() + u64::from(page) % 512 * 8,
        ))
    }
}

/// What the kernel knows of frames that are in use for good, or that it lent to somebody.
#[derive(Debug)]
pub struct Uses(Mutex<arrayvec::ArrayVec<(Pfn, Holder), 16>>);

impl Uses {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(arrayvec::ArrayVec::new_const()))
    }

    /// Takes note of a use. One more than there is room for is not remembered: it costs a name in
    /// an error message.
    pub fn add(&self, pfn: Pfn, holder: Holder) {
        let _unremembered = self.0.lock().try_push((pfn, holder));
    }

    /// Forgets a frame.
    pub fn remove(&self, pfn: Pfn) {
        self.0.lock().retain(|(used, _)| *used != pfn);
    }

    fn of(&self, pfn: Pfn) -> Option<Holder> {
        self.0.lock().iter().find(|(used, _)| *used == pfn).map(|(_, holder)| *holder)
    }
}

/// Who has hold of a frame with `mfn` beneath it: by what the kernel noted, then by the areas, then
/// by a walk through the page tables.
pub fn holder(areas: &Areas, uses: &Uses, m2p: M2p, pfn: Pfn, mfn: Mfn) -> Holder {
    if let Some(holder) = uses.of(pfn).or_else(|| areas.holder(pfn)) {
        return holder;
    }
    let mut found = Holder::Unknown;
    let frames = areas.tables().p2m.frames();
    walk::visit(Some(m2p), frames, |visit| match visit {
        Visit::Table { frame, level } if frame == mfn.number() => {
            found = Holder::PageTable { level };
        }
        Visit::Page(page)
            if page.frame == mfn.number() && page.address != layout::linear(pfn).as_u64() =>
        {
            let address = VirtAddr::new(page.address);
            if found == Holder::Unknown {
                found = Holder::Mapping { address };
            }
        }
        _ => {}
    });
    found
}
