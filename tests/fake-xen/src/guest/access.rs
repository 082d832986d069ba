//! Accesses of vCPUs to the guest's memory.

#![expect(unsafe_code, reason = "the traits are unsafe to implement")]

use hypercall::ops::Pte;
use hypercall::{Mfn, PageTableFlags, Pfn, VirtAddr};
use xen_contig::addr::{MachineAddr, PseudoPhysAddr};
use xen_contig::frames::FrameRun;
use xen_contig::p2m::P2m;
use xen_contig::paging::{
    EntryRow, FirstLevelTable, FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping, Word,
};

use super::FakeGuest;
use crate::content::{Content, WORDS};
use crate::frame::PageType;
use crate::vcpu;

impl FakeGuest {
    /// The first-level table of the linear mapping that maps a frame. The tables are the first frames of
    /// the guest.
    fn table_of(&self, pfn: Pfn) -> Option<Mfn> {
        let table = Pfn::new(pfn.number() / WORDS as u64);
        (pfn.number() < self.frames).then(|| self.mfn(table)).flatten()
    }

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
        self.reach(vcpu::current(), pfn, true, |content| content.fill(value));
    }

    /// The word that fills a frame, read through the linear mapping; `None` if its words differ.
    pub fn uniform(&self, pfn: Pfn) -> Option<u64> {
        self.reach(vcpu::current(), pfn, false, |content| content.uniform())
    }

    /// Reads a word through an alias.
    pub fn read_alias(&self, vcpu: u32, slot: u64, word: usize) -> u64 {
        self.xen.with(|machine| {
            let mfn =
                machine.translate(vcpu as usize, (machine.layout.aliases >> 12) + slot, false);
            mfn.map_or(0, |mfn| machine.frames[mfn as usize].content.read(word))
        })
    }

    /// Fills every usable frame with its own [`colour`](Self::colour).
    pub fn paint(&self) {
        for pfn in self.usable() {
            self.fill(pfn, Self::colour(pfn));
        }
    }

    /// The word with which [`paint`](Self::paint) fills a frame.
    pub const fn colour(pfn: Pfn) -> u64 {
        pfn.number() ^ 0xfeed_0000_0000_0000
    }

    /// The address of a frame in the linear mapping.
    pub fn address(&self, pfn: Pfn) -> VirtAddr {
        VirtAddr::new(self.layout.linear + (pfn.number() << 12))
    }

    fn reach<R: Default>(
        &self,
        vcpu: u32,
        pfn: Pfn,
        write: bool,
        access: impl FnOnce(&mut Content) -> R,
    ) -> R {
        self.xen.turn();
        self.reach_at_once(vcpu, pfn, write, access)
    }

    /// Accesses a frame without a turn of another thread before it.
    ///
    /// The library accesses its own records and the buffers of drivers this way. Their owners are alone
    /// with them, and loom would run each scenario once more for each word.
    fn reach_at_once<R: Default>(
        &self,
        vcpu: u32,
        pfn: Pfn,
        write: bool,
        access: impl FnOnce(&mut Content) -> R,
    ) -> R {
        self.xen.with(|machine| {
            let page = machine.layout.linear_page(pfn.number());
            let mfn = machine.translate(vcpu as usize, page, write);
            // None only while the test is being stopped already.
            mfn.map_or_else(R::default, |mfn| access(&mut machine.frames[mfn as usize].content))
        })
    }
}

// SAFETY: `zero` fills exactly the given frames, through the translations that a vCPU uses.
unsafe impl GuestMemory for FakeGuest {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        for pfn in first.number()..first.number() + frames {
            self.fill(Pfn::new(pfn), 0);
        }
    }

    /// Copies frame by frame, which is much faster here than word by word.
    unsafe fn copy(&self, from: Pfn, to: Pfn, frames: u64) {
        let vcpu = vcpu::current();
        for index in 0..frames {
            let bytes = self
                .reach_at_once(vcpu, from.add(index), false, |content| Some(content.duplicate()));
            // None only while the test is being stopped already.
            let Some(bytes) = bytes else { return };
            self.reach_at_once(vcpu, to.add(index), true, |content| content.replace(bytes));
        }
    }

    /// Returns the frame's address in the linear mapping. The host can only follow it in a guest
    /// with [real memory](super::GuestBuilder::real_memory); without, an access crashes the test.
    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.address(pfn).as_mut_ptr()
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        self.areas.as_ref().map_or(Ok(()), |areas| areas.vacate(run))
    }

    fn holder(&self, pfn: Pfn, _: Option<Mfn>) -> Holder {
        let known = self.areas.as_ref().and_then(|areas| areas.holder(pfn));
        known.unwrap_or(Holder::Unknown)
    }

    unsafe fn load<T: Word>(&self, at: PseudoPhysAddr) -> T {
        let load = |content: &mut Content| content.load(at.offset(), size_of::<T>());
        T::from_bits(self.reach_at_once(vcpu::current(), at.frame(), false, load))
    }

    unsafe fn store<T: Word>(&self, at: PseudoPhysAddr, value: T) {
        let bits = value.to_bits();
        let store = |content: &mut Content| content.store(at.offset(), size_of::<T>(), bits);
        self.reach_at_once(vcpu::current(), at.frame(), true, store);
    }
}

// SAFETY: the builder's tables map each frame at `address` and never move. An alias exists only where
// the test made one.
unsafe impl LinearMapping for FakeGuest {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        let table = self.table_of(pfn).expect("a frame of the linear mapping");
        MachineAddr::new(MachineAddr::of(table).get() + pfn.number() % WORDS as u64 * 8)
    }

    fn whole_table(&self, first: Pfn) -> Option<FirstLevelTable> {
        let mfn = self.table_of(first)?;
        let table = first.number() / WORDS as u64;
        let upper = self.xen.with(|machine| machine.upper_entry(table));
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        Some(FirstLevelTable {
            frame: Pfn::new(table),
            upper: MachineAddr::new(upper),
            hook: Pte::new(mfn, flags),
        })
    }

    fn entries(&self, first: Pfn, frames: u64) -> EntryRow {
        let in_table = WORDS as u64 - first.number() % WORDS as u64;
        EntryRow { first: self.entry(first), count: frames.min(in_table) }
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }

    fn check_unreferenced(&self, run: &FrameRun, p2m: &P2m<'_>) -> Result<(), FrameInUse> {
        self.xen.with(|machine| {
            run.iter().try_for_each(|pfn| {
                let frame = p2m.mfn(pfn).and_then(|mfn| machine.frame(mfn.number()));
                let holder = match frame {
                    Some(frame) if frame.special => Holder::Shared { name: "with Xen" },
                    Some(frame) if frame.holds > 0 => Holder::Granted { reference: 0 },
                    Some(frame) if frame.kind == PageType::L1 => Holder::PageTable { level: 1 },
                    // The linear mapping is one reference.
                    Some(frame) if frame.references > 1 => {
                        Holder::Mapping { address: VirtAddr::new(machine.layout.aliases) }
                    }
                    _ => return Ok(()),
                };
                Err(FrameInUse { pfn, holder })
            })
        })
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        let wanted = first.number()..first.number() + frames;
        let recorded = self.xen.with(|machine| -> Vec<(u64, u64)> {
            let records = (0..machine.frames.len() as u64).map(|mfn| (machine.m2p(mfn), mfn));
            records.filter(|(pfn, _)| wanted.contains(pfn)).collect()
        });
        // After the machine's lock is released, because `see` makes hypercalls.
        recorded.into_iter().for_each(|(pfn, mfn)| see(Pfn::new(pfn), Mfn::new(mfn)));
    }
}
