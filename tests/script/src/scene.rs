//! The run and what has become of it.

use arrayvec::ArrayVec;
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemoryOp, Pte, UvmFlags};
use hypercall::{DomId, Mfn, PageTableFlags, Pfn, Xen, XenErrno};

use crate::line::Line;
use crate::reservation::Operation;
use crate::words::{Words, frames, number};
use crate::{FRAMES, Ground, Page};

/// A mapping that can be read.
pub(crate) const READ: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::NO_EXECUTE);

/// More than any machine has, and what fits into a page-table entry of a translated guest.
const FAR: u64 = 1 << 30;

/// A list of a call.
pub(crate) type List = [u64; FRAMES as usize];

/// What came of a call; `None` where its words make none.
pub(crate) type Call = Option<Line>;

/// A script in play.
pub(crate) struct Scene<'g, G> {
    pub ground: &'g G,
    /// What the guest takes to be beneath each frame.
    pub beneath: List,
    /// Extents that were got to fill the domain up, and their orders.
    pub filling: ArrayVec<(u64, u32), 12>,
}

impl<'g, G: Ground> Scene<'g, G> {
    pub fn new(ground: &'g G) -> Self {
        let run = ground.run();
        let beneath = core::array::from_fn(|index| ground.beneath(run.add(index as u64)));
        Self { ground, beneath, filling: ArrayVec::new() }
    }

    /// Makes a call and says what came of it.
    pub fn call(&mut self, text: &str) -> Line {
        let mut words = Words::of(text);
        let made = match words.next() {
            Some("exchange") => self.exchange(words),
            Some("decrease") => self.reserve(words, Operation::Decrease),
            Some("populate") => self.reserve(words, Operation::Populate),
            Some("increase") => self.reserve(words, Operation::Increase),
            Some("current_reservation") => self.current_reservation(words),
            Some("fill") => self.fill(),
            Some("drain") => self.drain(),
            Some("mmu_update") => self.mmu_update(words),
            Some("update_va_mapping") => self.update_va_mapping(words),
            Some("mmuext_op") => self.mmuext_op(words),
            Some("find") => self.find(words),
            _ => None,
        };
        made.unwrap_or_else(|| Line::malformed("the script's words are not understood"))
    }

    pub fn pfn(&self, index: u64) -> Pfn {
        self.ground.run().add(index)
    }

    /// The frame that a name stands for, as Xen takes one that goes.
    pub fn frame(&self, name: &str) -> Option<u64> {
        match name {
            "beyond" => Some(self.beyond()),
            "free" => self.ground.nobodys(),
            _ => frames(name).map(|range| self.beneath[*range.start() as usize]),
        }
    }

    fn beyond(&self) -> u64 {
        if self.ground.is_translated() {
            return FAR;
        }
        // SAFETY: asks for a number.
        unsafe { self.ground.xen().memory_op(MemoryOp::MaximumRamPage) }.unwrap_or(FAR)
    }

    /// The domain that a name stands for.
    pub fn domain(&self, name: &str) -> Option<DomId> {
        match name {
            "self" => Some(DomId::SELF),
            "unknown" => Some(DomId(0x7000)),
            "other" => Some(self.ground.other()),
            // Nobody tells a domain its number, but only of itself may a domU ask this.
            "own" => (0..0x7ff0).map(DomId).find(|id| {
                // SAFETY: asks for a number.
                unsafe { self.ground.xen().memory_op(MemoryOp::CurrentReservation(*id)) }.is_ok()
            }),
            number_of => number(number_of).map(|id| DomId(id as u16)),
        }
    }

    /// Notes a new frame beneath one of the run.
    pub fn adopt(&mut self, index: u64, frame: u64) {
        self.beneath[index as usize] = frame;
        self.ground.record(self.pfn(index), frame);
    }

    /// Whether a frame is still the guest's.
    pub fn is_ours(&self, frame: u64) -> bool {
        if self.ground.is_translated() {
            // Of a frame that there is Xen says that it will not exchange it, of a hole EINVAL.
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
            // SAFETY: the lists live across the call; Xen exchanges nothing for such a guest (C26).
            let answer = unsafe { self.ground.xen().memory_op(MemoryOp::Exchange(&mut argument)) };
            return answer == Err(XenErrno::EOPNOTSUPP);
        }
        // Xen refuses to map what is not the domain's.
        let probe = self.ground.address(Page::Probe);
        let set = |pte| {
            let flush = UvmFlags::INVLPG | UvmFlags::ALL;
            // SAFETY: the page is there for this, and nothing is reached through it.
            unsafe { self.ground.xen().update_va_mapping(probe, pte, flush) }
        };
        let mapped = set(Pte::new(Mfn::new(frame), READ)).is_ok();
        if mapped {
            // What was just mapped can be unmapped.
            let _infallible = set(Pte::NOT_PRESENT);
        }
        mapped
    }

    /// Adds to a line what has become of the run, of which a call has replaced `moved`.
    pub fn tell(&self, line: &mut Line, mut moved: u32) {
        let mut gone = 0;
        for index in (0..FRAMES).filter(|index| !self.is_ours(self.beneath[*index as usize])) {
            gone |= 1 << index;
        }
        moved &= !gone;
        line.set(" moved ", "r", moved);
        line.set(" gone ", "r", gone);
        if self.ground.is_translated() {
            return;
        }
        for index in (0..FRAMES).filter(|index| gone >> index & 1 == 0) {
            let recorded = self.ground.m2p(self.beneath[index as usize]);
            if recorded == Some(self.pfn(index).number()) {
                continue;
            }
            line.add(format_args!(" m2p(r{index})="));
            let first = self.ground.run().number();
            match recorded.and_then(|pfn| pfn.checked_sub(first)).filter(|at| *at < FRAMES) {
                Some(at) => line.add(format_args!("r{at}")),
                None => line.add(format_args!("other")),
            }
        }
    }
}
