//! Frames that are in use for good or lent, and the search for what maps a frame.

use arrayvec::ArrayVec;
use hypercall::VirtAddr;
use spin::Mutex;
use xen_contig::addr::{Mfn, Pfn};
use xen_contig::p2m::M2p;
use xen_contig::paging::Holder;

use super::walk::{self, Visit};
use crate::areas::Areas;
use crate::layout;

/// Frames that are in use for good or lent, and by whom.
#[derive(Debug)]
pub struct Uses(Mutex<ArrayVec<(Pfn, Holder), 16>>);

impl Uses {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Mutex::new(ArrayVec::new_const()))
    }

    /// Records a use.
    ///
    /// A full list drops the record. Then an error message lacks a name.
    pub fn add(&self, pfn: Pfn, holder: Holder) {
        let _dropped = self.0.lock().try_push((pfn, holder));
    }

    /// Removes the records of a frame.
    pub fn remove(&self, pfn: Pfn) {
        self.0.lock().retain(|(used, _)| *used != pfn);
    }

    fn of(&self, pfn: Pfn) -> Option<Holder> {
        self.0.lock().iter().find(|(used, _)| *used == pfn).map(|(_, holder)| *holder)
    }
}

/// Finds what references a frame of a PV guest that `mfn` backs.
///
/// Looks into the recorded uses first, then into the areas, then into all page tables.
pub fn find_holder(
    areas: &Areas,
    uses: &Uses,
    m2p: M2p,
    frames: u64,
    pfn: Pfn,
    mfn: Mfn,
) -> Holder {
    if let Some(holder) = uses.of(pfn).or_else(|| areas.holder(pfn)) {
        return holder;
    }
    let mut found = Holder::Unknown;
    walk::visit(Some(m2p), frames, |visit| match visit {
        Visit::Table { frame, level, .. } if frame == mfn.number() => {
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
