//! The machine: its frames, their owners, and Xen's records about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hypercall::DomId;

use crate::content::{Content, POISON};
use crate::domain::Domain;
use crate::fault::Faults;
use crate::frame::{MachineFrame, Owner, PageType};
use crate::heap::Heap;
use crate::list::Places;
use crate::log::Log;
use crate::ram::Ram;
use crate::tables::{AddressLayout, AddressSpace};
use crate::tlb::Tlb;

/// The M2P's entry for a frame that belongs to no guest.
pub(crate) const INVALID_M2P: u64 = u64::MAX;

/// The other domain: it owns a [`foreign_frame`](crate::FakeGuest::foreign_frame) and does nothing.
pub const NEIGHBOUR: DomId = DomId(2);

/// Frames below this one are Xen's own.
const XEN_FRAMES: u64 = 16;

/// The hole below 1 MiB, as on a PC.
const HOLE: std::ops::Range<u64> = 0xa0..0x100;

/// The state of the model. One lock guards it.
#[derive(Debug)]
pub(crate) struct MachineState {
    pub frames: Vec<MachineFrame>,
    /// The guest reads it without a hypercall, as on a real machine.
    pub m2p: Arc<[AtomicU64]>,
    pub heap: Heap,
    pub domain: Domain,
    pub space: AddressSpace,
    pub layout: AddressLayout,
    /// The frames' bytes, where the guest has pointers to them.
    pub ram: Option<Ram>,
    pub tlbs: Vec<Tlb>,
    pub faults: Faults,
    pub log: Log,
    pub places: Places,
    /// Frames that a test took out of the heap.
    pub hogs: Vec<u64>,
    /// How many frames returned to Xen were not zeroed.
    pub dirty: u64,
    /// How often an exchange was preempted.
    pub preemptions: u64,
    /// The text that was written to Xen's console.
    pub console: Vec<u8>,
    pub next_port: u32,
}

impl MachineState {
    pub fn new(
        frames: u64,
        domain: Domain,
        vcpus: usize,
        layout: AddressLayout,
        ram: Option<Ram>,
    ) -> Self {
        let owner = |mfn| match mfn {
            0..XEN_FRAMES => Owner::Xen,
            mfn if HOLE.contains(&mfn) => Owner::Hole,
            _ => Owner::Free,
        };
        let content = |mfn| match &ram {
            Some(ram) => Content::Ram(ram.frame(mfn)),
            None => Content::Fill(0),
        };
        let frame = |mfn| MachineFrame { content: content(mfn), ..MachineFrame::of(owner(mfn)) };
        let frames: Vec<MachineFrame> = (0..frames).map(frame).collect();
        let mut machine = Self {
            m2p: frames.iter().map(|_| AtomicU64::new(INVALID_M2P)).collect(),
            frames,
            heap: Heap::new(),
            domain,
            space: AddressSpace::default(),
            layout,
            ram,
            tlbs: vec![Tlb::default(); vcpus],
            faults: Faults::default(),
            log: Log::default(),
            places: Places::default(),
            hogs: Vec::new(),
            dirty: 0,
            preemptions: 0,
            console: Vec::new(),
            next_port: 1,
        };
        for mfn in XEN_FRAMES..machine.frames.len() as u64 {
            if machine.frames[mfn as usize].owner == Owner::Free {
                machine.frames[mfn as usize].content.fill(POISON);
                machine.heap.give(mfn, 0);
            }
        }
        machine
    }

    /// Stops the test, because a rule was broken that a real machine would not report.
    ///
    /// During a panic it does nothing: a second panic would hide the first.
    pub fn violation(&self, what: &str) {
        if !std::thread::panicking() {
            panic!("the model's rules were broken: {what}");
        }
    }

    pub fn frame(&self, mfn: u64) -> Option<&MachineFrame> {
        self.frames.get(usize::try_from(mfn).ok()?)
    }

    /// The frame, if it belongs to the domain (`get_page_from_gfn` of a PV guest).
    pub fn own(&mut self, mfn: u64) -> Option<&mut MachineFrame> {
        let owner = Owner::Domain(self.domain.id);
        self.frames.get_mut(usize::try_from(mfn).ok()?).filter(|frame| frame.owner == owner)
    }

    pub fn m2p(&self, mfn: u64) -> u64 {
        self.m2p.get(mfn as usize).map_or(INVALID_M2P, |entry| entry.load(Relaxed))
    }

    pub fn set_m2p(&self, mfn: u64, pfn: u64) {
        self.m2p[mfn as usize].store(pfn, Relaxed);
    }

    /// Drops a reference. The last one frees a frame that its owner has released.
    pub fn put_page(&mut self, mfn: u64) {
        let frame = &mut self.frames[mfn as usize];
        frame.references = frame.references.checked_sub(1).expect("a reference of this frame");
        if frame.references == 0 && !frame.allocated {
            self.domain.pages -= 1;
            self.free(mfn, 0);
        }
    }

    /// Gives an extent to the heap, poisoned.
    pub fn free(&mut self, first: u64, order: u32) {
        for mfn in first..first + (1 << order) {
            let frame = &mut self.frames[mfn as usize];
            frame.renew(Owner::Free);
            frame.content.fill(POISON);
            self.set_m2p(mfn, INVALID_M2P);
        }
        self.heap.give(first, order);
    }

    /// Gives an extent to the domain (`assign_pages`).
    pub fn assign(&mut self, first: u64, order: u32) {
        for mfn in first..first + (1 << order) {
            let frame = &mut self.frames[mfn as usize];
            frame.owner = Owner::Domain(self.domain.id);
            frame.allocated = true;
            frame.kind = PageType::None;
        }
    }

    /// The first frame number beyond what `XENMEMF_address_bits` allows (`domain_clamp_alloc_bitsize`
    /// and `bits_to_zone`). 0 bits and 64 or more set no limit; 12 or fewer admit no frame.
    pub fn frame_limit(&self, mem_flags: u32) -> u64 {
        let frames = self.frames.len() as u64;
        match mem_flags & 0xff {
            0 | 64.. => frames,
            0..=12 => 0,
            bits => frames.min(1 << (bits - 12)),
        }
    }
}
