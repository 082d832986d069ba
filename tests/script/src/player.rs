//! The player of a script: it makes the calls and reads the state of the run.

use arrayvec::ArrayVec;
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemoryOp, Pte, UvmFlags};
use hypercall::{DomId, Mfn, PageTableFlags, Pfn, Xen, XenErrno};

use crate::line::AnswerLine;
use crate::reservation::ReservationOp;
use crate::words::{Words, frames, number};
use crate::{FRAMES, ScriptGuest, ScriptPage};

/// The flags of a read-only mapping.
pub(crate) const READ: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::NO_EXECUTE);

/// A frame number past the memory of any machine that fits into a page-table entry.
const FAR: u64 = 1 << 30;

/// A list of frames that a call passes to Xen.
pub(crate) type FrameList = [u64; FRAMES as usize];

/// A script that runs, with the state of its frames.
///
/// Each call returns its answer, or `None` if its words are not valid.
pub(crate) struct Player<'g, G> {
    pub guest: &'g G,
    /// The backing of each frame of the run, as the guest recorded it.
    pub backing: FrameList,
    /// First frames and orders of the extents that `fill` took.
    pub fillers: ArrayVec<(u64, u32), 12>,
}

impl<'g, G: ScriptGuest> Player<'g, G> {
    pub fn new(guest: &'g G) -> Self {
        let run = guest.run();
        let backing = core::array::from_fn(|index| guest.backing(run.add(index as u64)));
        Self { guest, backing, fillers: ArrayVec::new() }
    }

    /// Makes a call and returns its answer.
    pub fn call(&mut self, text: &str) -> AnswerLine {
        let mut words = Words::of(text);
        let made = match words.next() {
            Some("exchange") => self.exchange(words),
            Some("decrease") => self.reserve(words, ReservationOp::Decrease),
            Some("populate") => self.reserve(words, ReservationOp::Populate),
            Some("increase") => self.reserve(words, ReservationOp::Increase),
            Some("current_reservation") => self.current_reservation(words),
            Some("fill") => self.fill(),
            Some("drain") => self.drain(),
            Some("mmu_update") => self.mmu_update(words),
            Some("update_va_mapping") => self.update_va_mapping(words),
            Some("mmuext_op") => self.mmuext_op(words),
            Some("find") => self.find(words),
            _ => None,
        };
        made.unwrap_or_else(|| {
            AnswerLine::malformed(
                "a word of the call is not in the table of tests/script/src/lib.rs",
            )
        })
    }

    pub fn pfn(&self, index: u64) -> Pfn {
        self.guest.run().add(index)
    }

    /// Returns the number by which the frame with a name goes to Xen.
    pub fn frame(&self, name: &str) -> Option<u64> {
        match name {
            "beyond" => Some(self.beyond()),
            "free" => self.guest.unowned(),
            _ => frames(name).map(|range| self.backing[*range.start() as usize]),
        }
    }

    fn beyond(&self) -> u64 {
        if self.guest.is_translated() {
            return FAR;
        }
        // SAFETY: the hypercall only returns a number.
        unsafe { self.guest.xen().memory_op(MemoryOp::MaximumRamPage) }.unwrap_or(FAR)
    }

    /// Returns the domain with a name.
    pub fn domain(&self, name: &str) -> Option<DomId> {
        match name {
            "self" => Some(DomId::SELF),
            "unknown" => Some(DomId(0x7000)),
            "other" => Some(self.guest.other_domain()),
            // Xen does not tell a domain its number. A domU may make this hypercall only for
            // itself.
            "own" => (0..0x7ff0).map(DomId).find(|id| {
                // SAFETY: the hypercall only returns a number.
                unsafe { self.guest.xen().memory_op(MemoryOp::CurrentReservation(*id)) }.is_ok()
            }),
            number_of => number(number_of).map(|id| DomId(id as u16)),
        }
    }

    /// Records the new backing of a frame of the run.
    pub fn set_backing(&mut self, index: u64, frame: u64) {
        self.backing[index as usize] = frame;
        self.guest.record(self.pfn(index), frame);
    }

    /// Returns true if the domain owns a frame.
    pub fn owns(&self, frame: u64) -> bool {
        if self.guest.is_translated() {
            // For a frame with memory, Xen returns EOPNOTSUPP, and for one without, EINVAL.
            let (mut input, mut output) = ([frame], [frame]);
            let list = |list: &mut [u64]| MemoryReservation {
                extent_start: list.as_mut_ptr(),
                nr_extents: 1,
                extent_order: 0,
                mem_flags: 0,
                domid: DomId::SELF,
            };
            let mut argument = MemoryExchange {
                input: list(&mut input),
                output: list(&mut output),
                nr_exchanged: 0,
            };
            // SAFETY: the lists live across the call. Xen exchanges nothing for a translated guest
            // ([C26](xen_contig::conformance#C26)).
            let answer = unsafe { self.guest.xen().memory_op(MemoryOp::Exchange(&mut argument)) };
            return answer == Err(XenErrno::EOPNOTSUPP);
        }
        // Xen refuses to map a frame that the domain does not own.
        let probe = self.guest.address(ScriptPage::Probe);
        let set = |pte| {
            let flush = UvmFlags::INVLPG | UvmFlags::ALL;
            // SAFETY: `ScriptPage::Probe` is for the script alone, and nothing accesses memory through
            // it.
            unsafe { self.guest.xen().update_va_mapping(probe, pte, flush) }
        };
        let mapped = set(Pte::new(Mfn::new(frame), READ)).is_ok();
        if mapped {
            // Xen does not refuse to remove a mapping that it has just made.
            let _infallible = set(Pte::NOT_PRESENT);
        }
        mapped
    }

    /// Adds the state of the run to a line.
    ///
    /// `moved` are the frames whose backing the call changed.
    pub fn add_state(&self, line: &mut AnswerLine, mut moved: u32) {
        let mut gone = 0;
        for index in (0..FRAMES).filter(|index| !self.owns(self.backing[*index as usize])) {
            gone |= 1 << index;
        }
        moved &= !gone;
        line.set(" moved ", "r", moved);
        line.set(" gone ", "r", gone);
        if self.guest.is_translated() {
            return;
        }
        for index in (0..FRAMES).filter(|index| gone >> index & 1 == 0) {
            let recorded = self.guest.m2p(self.backing[index as usize]);
            if recorded == Some(self.pfn(index).number()) {
                continue;
            }
            line.add(format_args!(" m2p(r{index})="));
            let first = self.guest.run().number();
            match recorded.and_then(|pfn| pfn.checked_sub(first)).filter(|at| *at < FRAMES) {
                Some(at) => line.add(format_args!("r{at}")),
                None => line.add(format_args!("other")),
            }
        }
    }
}
