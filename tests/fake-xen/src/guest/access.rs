//! Accesses to the guest's memory, the way its vCPUs make them.

#![expect(unsafe_code, reason = "the traits are unsafe to implement")]

use hypercall::{Mfn, PageTableFlags, Pfn, VirtAddr};
use xen_contig::addr::{MachineAddr, PseudoPhysAddr};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{EntryRow, FlushClock, GuestMemory, Held, Holder, LinearMapping, Width};

use super::{ALIASES, FakeGuest, LINEAR};
use crate::content::{Content, WORDS};
use crate::machine::Machine;
use crate::vcpu;

impl FakeGuest {
    /// Reads a word of a frame through the linear mapping.
    pub fn read(&self, vcpu: u32, pfn: Pfn, word: usize) -> u64 {
        self.reach(vcpu, pfn, false, |content| content.read(word))
    }

    /// Writes a word of a frame through the linear mapping.
    pub fn write(&self, vcpu: u32, pfn: Pfn, word: usize, value: u64) {
        self.reach(vcpu, pfn, true, |content| content.write(word, value));
    }

    /// Fills a frame through the linear mapping.
    pub fn fill(&self, pfn: Pfn, value: u64) {
        self.reach(vcpu::current(), pfn, true, |content| *content = Content::Fill(value));
    }

    /// The word that a frame repeats from end to end, read through the linear mapping.
    pub fn uniform(&self, pfn: Pfn) -> Option<u64> {
        self.reach(vcpu::current(), pfn, false, |content| content.uniform())
    }

    /// Reads a word through an alias.
    pub fn read_alias(&self, vcpu: u32, slot: u64, word: usize) -> u64 {
        self.xen.with(|machine| {
            let mfn = machine.translate(vcpu as usize, (ALIASES >> 12) + slot, false);
            mfn.map_or(0, |mfn| machine.frames[mfn as usize].content.read(word))
        })
    }

    /// Fills every usable frame with a word of its own.
    pub fn paint(&self) {
        for pfn in self.usable() {
            self.fill(pfn, Self::colour(pfn));
        }
    }

    /// What [`paint`](Self::paint) gave a frame.
    pub const fn colour(pfn: Pfn) -> u64 {
        pfn.number() ^ 0xfeed_0000_0000_0000
    }

    /// The address of a frame in the linear mapping.
    pub const fn address(&self, pfn: Pfn) -> VirtAddr {
        VirtAddr::new(LINEAR + (pfn.number() << 12))
    }

    fn reach<R: Default>(
        &self,
        vcpu: u32,
        pfn: Pfn,
        write: bool,
        access: impl FnOnce(&mut Content) -> R,
    ) -> R {
        self.xen.turn();
        self.xen.with(|machine| {
            let mfn = machine.reach(vcpu as usize, pfn.number(), write);
            // None only while the test is being stopped already.
            mfn.map_or_else(R::default, |mfn| access(&mut machine.frames[mfn as usize].content))
        })
    }
}

impl Machine {
    /// The machine frame that a vCPU reaches at a guest frame's linear address.
    fn reach(&self, vcpu: usize, pfn: u64, write: bool) -> Option<u64> {
        match &self.domain.physmap {
            None => self.translate(vcpu, (LINEAR >> 12) + pfn, write),
            Some(physmap) => {
                let mfn = physmap.get(pfn as usize).copied().flatten();
                if mfn.is_none() {
                    self.violation(&format!("vCPU {vcpu} accesses pfn {pfn:#x}, which is a hole"));
                }
                mfn
            }
        }
    }
}

// SAFETY: zeroes exactly the frames it is given, through the translations that a vCPU would use.
unsafe impl GuestMemory for FakeGuest {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        for pfn in first.number()..first.number() + frames {
            let zero = |content: &mut Content| *content = Content::Fill(0);
            self.reach(vcpu::current(), Pfn::new(pfn), true, zero);
        }
    }

    /// An address that means nothing to the host: who follows it crashes the test.
    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.address(pfn).as_mut_ptr()
    }

    fn purge(&self, run: &FrameRun) -> Result<(), Held> {
        self.areas.as_ref().map_or(Ok(()), |areas| areas.vacate(run))
    }

    fn holder(&self, pfn: Pfn, _: Option<Mfn>) -> Holder {
        let known = self.areas.as_ref().and_then(|areas| areas.holder(pfn));
        known.unwrap_or(Holder::Unknown)
    }

    unsafe fn load(&self, at: PseudoPhysAddr, width: Width) -> u64 {
        let (word, shift, mask) = bits(at, width);
        (self.read(vcpu::current(), at.frame(), word) >> shift) & mask
    }

    unsafe fn store(&self, at: PseudoPhysAddr, width: Width, value: u64) {
        let (word, shift, mask) = bits(at, width);
        let old = self.read(vcpu::current(), at.frame(), word) & !(mask << shift);
        self.write(vcpu::current(), at.frame(), word, old | (value & mask) << shift);
    }
}

/// Where in a frame a value lies: in which word, from which bit on, and how wide.
fn bits(at: PseudoPhysAddr, width: Width) -> (usize, usize, u64) {
    let (offset, bytes) = (at.offset(), width.bytes());
    assert!(offset.is_multiple_of(bytes), "{at} is no multiple of {bytes}");
    (offset / 8, offset % 8 * 8, u64::MAX >> (64 - 8 * bytes))
}

// SAFETY: the tables that the builder made map frame n at LINEAR + n * 4096 and stay where they are;
// an alias exists where the test made one.
unsafe impl LinearMapping for FakeGuest {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        let page = (LINEAR >> 12) + pfn.number();
        let entry = self.xen.with(|machine| machine.entry_of(page));
        MachineAddr::new(entry.expect("a frame of the linear mapping"))
    }

    fn entries(&self, first: Pfn, frames: u64) -> EntryRow {
        let in_table = WORDS as u64 - first.number() % WORDS as u64;
        EntryRow { first: self.entry(first), count: frames.min(in_table) }
    }

    fn flags(&self) -> PageTableFlags {
        PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        let wanted = first.number()..first.number() + frames;
        let recorded = self.xen.with(|machine| -> Vec<(u64, u64)> {
            let records = (0..machine.frames.len() as u64).map(|mfn| (machine.m2p(mfn), mfn));
            records.filter(|(pfn, _)| wanted.contains(pfn)).collect()
        });
        // Not under the machine's lock: who sees makes hypercalls.
        recorded.into_iter().for_each(|(pfn, mfn)| see(Pfn::new(pfn), Mfn::new(mfn)));
    }
}
