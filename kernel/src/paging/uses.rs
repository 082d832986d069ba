//! Frames that are in use for good or shared, and the search for what references a frame.

use arrayvec::ArrayVec;
use hypercall::VirtAddr;
use spin::Mutex;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::{M2p, P2m};
use xen_contig::paging::{FrameInUse, Holder};

use super::walk::{self, Visit};
use crate::areas::Areas;
use crate::layout;
use crate::traps::try_read;

/// The frames that are in use for good or shared, each with its user.
#[derive(Debug)]
pub struct Uses(Mutex<Recorded>);

#[derive(Debug)]
struct Recorded {
    uses: ArrayVec<(Pfn, Holder), 64>,
    /// True if a record was dropped because the list was full.
    incomplete: bool,
}

impl Uses {
    /// Returns an empty list.
    pub const fn new() -> Self {
        Self(Mutex::new(Recorded { uses: ArrayVec::new_const(), incomplete: false }))
    }

    /// Records a use.
    ///
    /// If the list is full, the record is dropped. Then an error message lacks a name, and memory
    /// in use can no longer be moved.
    pub fn add(&self, pfn: Pfn, holder: Holder) {
        let mut recorded = self.0.lock();
        if recorded.uses.try_push((pfn, holder)).is_err() {
            recorded.incomplete = true;
        }
    }

    /// Removes the records of a frame.
    pub fn remove(&self, pfn: Pfn) {
        self.0.lock().uses.retain(|(used, _)| *used != pfn);
    }

    fn of(&self, pfn: Pfn) -> Option<Holder> {
        self.0.lock().uses.iter().find(|(used, _)| *used == pfn).map(|(_, holder)| *holder)
    }

    /// Finds a frame of a run that is in use. If a record was dropped, this reports the first frame
    /// as in use.
    fn in_run(&self, run: &FrameRun) -> Option<FrameInUse> {
        let recorded = self.0.lock();
        let is_within = |pfn: Pfn| (run.first()..run.first().add(run.frames())).contains(&pfn);
        let used = recorded.uses.iter().find(|(pfn, _)| is_within(*pfn));
        let unknown = recorded.incomplete.then_some((run.first(), Holder::Unknown));
        used.copied().or(unknown).map(|(pfn, holder)| FrameInUse { pfn, holder })
    }
}

/// Finds what references a frame of a PV guest that `mfn` backs.
///
/// Searches the recorded uses first, then the areas, then all page tables.
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

/// Finds a frame of a run of a PV guest that is referenced in addition to the linear mapping.
///
/// Searches the recorded uses first, then all page tables, once for the whole run.
pub fn find_use(
    areas: &Areas,
    uses: &Uses,
    m2p: M2p,
    p2m: &P2m<'_>,
    run: &FrameRun,
) -> Option<FrameInUse> {
    let mut found = uses.in_run(run);
    if found.is_some() {
        return found;
    }
    let of_run = |frame: u64| {
        // The guest may map memory of devices, for which the M2P may have a hole.
        let record = try_read(m2p.entry(Mfn::new(frame))?).ok()?;
        let pfn = M2p::decode(record)?;
        let is_within = (run.first()..run.first().add(run.frames())).contains(&pfn);
        (is_within && p2m.mfn(pfn) == Some(Mfn::new(frame))).then_some(pfn)
    };
    walk::visit(Some(m2p), p2m.frames(), |visit| {
        let (frame, address, level) = match visit {
            Visit::Table { frame, level, .. } => (frame, None, level),
            Visit::Page(page) => (page.frame, Some(VirtAddr::new(page.address)), 0),
        };
        if found.is_some() || address.is_some_and(|it| is_linear(it, frame, p2m)) {
            return;
        }
        found = of_run(frame).map(|pfn| {
            let holder = match address {
                None => Holder::PageTable { level },
                Some(address) => areas.holder(pfn).unwrap_or(Holder::Mapping { address }),
            };
            FrameInUse { pfn, holder }
        });
    });
    found
}

/// Returns true if the address is the linear one of the guest frame that `frame` backs.
fn is_linear(address: VirtAddr, frame: u64, p2m: &P2m<'_>) -> bool {
    let offset = address.as_u64().checked_sub(layout::LINEAR_BASE);
    let pfn = offset.map(|offset| Pfn::new(offset / PAGE_SIZE as u64));
    pfn.and_then(|pfn| p2m.mfn(pfn)) == Some(Mfn::new(frame))
}
