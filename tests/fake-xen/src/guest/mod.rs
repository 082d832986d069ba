//! The kernel around the code under test.
//!
//! * [`GuestBuilder`]: builds the machine and the guest;
//! * `access`: memory accesses of a vCPU, and the library's traits for the linear mapping;
//! * `alias`: other references to a frame;
//! * [`FakeAreas`]: an address range for virtual areas;
//! * `device`: accesses of a device, by its address;
//! * [`FakePlatform`]: a kernel with a frame allocator, for the allocator of buffers;
//! * [`ExtentExchanger`]: exchanges a whole run for one extent, and back;
//! * `supply`: how much memory Xen's heap has;
//! * [`Census`]: counts every frame and compares all records.

mod access;
mod alias;
mod areas;
mod builder;
mod census;
mod device;
mod extent;
mod platform;
mod reserve_lock;
mod supply;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hypercall::{Mfn, Pfn};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::P2m;
use xen_contig::paging::FlushClock;
use xen_contig::sync::AtomicU64;
use xen_contig::vmap::Vmap;

use crate::machine::INVALID_M2P;
use crate::ram::HostMapping;
use crate::tables::AddressLayout;
use crate::xen::FakeXen;

pub use areas::{AreaConfig, FakeAreas};
pub use builder::GuestBuilder;
pub use census::{Census, Snapshot};
pub use extent::{Extent, ExtentExchanger};
pub use platform::FakePlatform;
pub(crate) use reserve_lock::check_not_held;

/// Where the linear mapping begins: frame *n* is at `LINEAR + n * 4096`. A guest with
/// [real memory](GuestBuilder::real_memory) has its linear mapping elsewhere.
pub const LINEAR: u64 = 0xffff_8880_0000_0000;

/// A guest on a model machine.
#[derive(Debug)]
pub struct FakeGuest {
    xen: FakeXen,
    /// Shared with the virtual areas, if the guest has any.
    flushes: Arc<FlushClock>,
    /// The table that [`P2m`] reads and writes; empty in a translated guest.
    p2m: Arc<[AtomicU64]>,
    frames: u64,
    layout: AddressLayout,
    /// Frames at the bottom that hold the page tables.
    tables: u64,
    areas: Option<Vmap<'static, FakeAreas>>,
    /// The memory of [`GuestBuilder::record_memory`], until it is unmapped with this value.
    _record_memory: Option<HostMapping>,
}

impl FakeGuest {
    /// A PV guest of `frames` frames with two vCPUs, on a machine of four times as many frames. Xen
    /// permits extents up to order 9.
    pub fn new(frames: u64) -> Self {
        GuestBuilder::new(frames).build()
    }

    /// The hypervisor.
    pub const fn xen(&self) -> &FakeXen {
        &self.xen
    }

    /// The guest's own map.
    #[expect(unsafe_code, reason = "the model's table is the guest's P2M")]
    pub fn p2m(&self) -> P2m<'_> {
        if self.xen.with(|machine| machine.domain.is_translated()) {
            P2m::translated(self.frames)
        } else {
            // SAFETY: the builder filled the table with the guest's frames, and nothing else writes
            // to it ([M4](xen_contig::rules#M4)), except a test that wants a falsehood in it.
            unsafe { P2m::table(&self.p2m) }
        }
    }

    /// How many frames the guest's memory spans.
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// Each frame that is free for use.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = Pfn> + Clone + use<> {
        (self.tables..self.frames).map(Pfn::new)
    }

    /// A run for the code under test.
    ///
    /// # Panics
    /// If the run contains page tables or ends beyond the guest's memory.
    #[expect(unsafe_code, reason = "claims the frames for the test")]
    pub fn run(&self, first: u64, frames: u64) -> FrameRun {
        assert!(first >= self.tables && first + frames <= self.frames, "no such run");
        // SAFETY: no Rust object lies in the model's frames. A test that claims a frame twice breaks
        // [M1](xen_contig::rules#M1) in the model only, which the model exists to find out.
        unsafe { FrameRun::new(Pfn::new(first), frames) }
    }

    /// The machine frame that backs a guest frame; `None` for a hole.
    pub fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let number = pfn.number();
        match self.p2m.get(number as usize) {
            Some(entry) => match entry.load(Relaxed) {
                INVALID_M2P => None,
                mfn => Some(Mfn::new(mfn)),
            },
            None => self.xen.with(|machine| {
                let physmap = machine.domain.physmap.as_ref()?;
                physmap.get(number as usize).copied().flatten().map(Mfn::new)
            }),
        }
    }

    /// The guest frame that Xen's M2P records for a machine frame.
    pub fn pfn(&self, mfn: Mfn) -> Option<Pfn> {
        match self.xen.with(|machine| machine.m2p(mfn.number())) {
            INVALID_M2P => None,
            pfn => Some(Pfn::new(pfn)),
        }
    }

    /// Writes a false entry into the P2M: `mfn` backs `pfn`. Returns the old entry.
    ///
    /// # Panics
    /// In a translated guest, which has no P2M.
    pub fn forge(&self, pfn: Pfn, mfn: Mfn) -> Mfn {
        Mfn::new(self.p2m[pfn.number() as usize].swap(mfn.number(), Relaxed))
    }

    /// Records an exchange in the P2M: `count` frames from `mfn` on back those from `pfn` on.
    pub fn forge_all(&self, pfn: u64, mfn: u64, count: u64) {
        for index in 0..count {
            self.forge(Pfn::new(pfn + index), Mfn::new(mfn + index));
        }
    }
}
