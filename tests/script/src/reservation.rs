//! The calls that change the reservation without an exchange.

use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};

use crate::exchange::{reservation, written};
use crate::line::AnswerLine;
use crate::player::Player;
use crate::words::{self, Words, cut, extents, number};
use crate::{FRAMES, ScriptGuest};

/// An operation that changes the reservation of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReservationOp {
    Decrease,
    Populate,
    Increase,
}

impl ReservationOp {
    const fn of(self, argument: &mut MemoryReservation) -> MemoryOp<'_> {
        match self {
            Self::Decrease => MemoryOp::DecreaseReservation(argument),
            Self::Populate => MemoryOp::PopulatePhysmap(argument),
            Self::Increase => MemoryOp::IncreaseReservation(argument),
        }
    }
}

/// Order of the largest extent that `fill` takes.
const LARGEST_FILLER: u32 = 9;

impl<G: ScriptGuest> Player<'_, G> {
    /// Makes one of the three operations.
    ///
    /// Example: `populate 1x3 r0 bits=30 domain=self`
    pub fn reserve(
        &mut self,
        mut words: Words<'_>,
        operation: ReservationOp,
    ) -> Option<AnswerLine> {
        let extents = extents(&mut words, self.guest.limit())?;
        let incoming = operation != ReservationOp::Decrease;
        let mut list = self.list(&extents, incoming)?;
        let before = list;
        let mut argument = reservation(&extents, &mut list);
        for (key, value) in words.map_while(|word| cut(word, b'=')) {
            match key {
                "bits" => argument.mem_flags = number(value)? as u32,
                "domain" => argument.domid = self.domain(value)?,
                _ => return None,
            }
        }
        // A list may be shorter than it claims only if Xen refuses its length before it reads the
        // list.
        if extents.count > FRAMES && extents.count < 1 << 26 {
            return None;
        }
        // SAFETY: the script owns the run, which contains no Rust value
        // ([M1](xen_contig::rules#M1)). The list lives across the call
        // ([M3](xen_contig::rules#M3)).
        let answer = unsafe { self.guest.xen().memory_op(operation.of(&mut argument)) };
        let mut line = AnswerLine::answer(answer);
        let wrote = written(&before, &list);
        line.set(" wrote ", "", wrote);
        let moved = match incoming {
            true => self.note_new_frames(&mut line, &before, &list, wrote, extents.order),
            false => 0,
        };
        self.add_state(&mut line, moved);
        Some(line)
    }

    /// Asks for the size of a reservation: `current_reservation own`.
    ///
    /// The size differs from boot to boot, so the answer does not contain it.
    pub fn current_reservation(&mut self, mut words: Words<'_>) -> Option<AnswerLine> {
        let domain = self.domain(words.next()?)?;
        // SAFETY: the hypercall only returns a number.
        let answer = unsafe { self.guest.xen().memory_op(MemoryOp::CurrentReservation(domain)) };
        Some(AnswerLine::answer(answer.map(|_| 0)))
    }

    /// Takes memory until the domain has its maximum: `fill`.
    pub fn fill(&mut self) -> Option<AnswerLine> {
        let ask = |op| {
            // SAFETY: the hypercall only returns a number.
            unsafe { self.guest.xen().memory_op(op) }.ok()
        };
        let maximum = ask(MemoryOp::MaximumReservation(DomId::SELF))?;
        let slack = maximum.checked_sub(ask(MemoryOp::CurrentReservation(DomId::SELF))?)?;
        if slack >> LARGEST_FILLER > 1 {
            return Some(AnswerLine::malformed(
                "the domain is more than 1023 frames below its maximum, or has none",
            ));
        }
        // A translated guest can return only memory that has a guest frame number.
        let operation = match self.guest.is_translated() {
            true => ReservationOp::Populate,
            false => ReservationOp::Increase,
        };
        for order in (0..=LARGEST_FILLER).filter(|order| slack >> order & 1 != 0) {
            match self.change_extent(order, self.guest.hole() + (1 << order), operation) {
                Some(first) => self.fillers.push((first, order)),
                None => return Some(AnswerLine::malformed("Xen has no memory for the domain")),
            }
        }
        Some(AnswerLine::answer(Ok(0)))
    }

    /// Returns the memory that `fill` took: `drain`.
    pub fn drain(&mut self) -> Option<AnswerLine> {
        for (first, order) in core::mem::take(&mut self.fillers) {
            self.change_extent(order, first, ReservationOp::Decrease)?;
        }
        Some(AnswerLine::answer(Ok(0)))
    }

    /// Takes or returns an extent outside the run. Returns its first frame.
    fn change_extent(&mut self, order: u32, first: u64, operation: ReservationOp) -> Option<u64> {
        let mut list = [first; FRAMES as usize];
        let extents = words::Extents { count: 1, order, names: Default::default() };
        let mut argument = reservation(&extents, &mut list);
        // SAFETY: nothing uses the new memory, or the memory that is returned.
        let answer = unsafe { self.guest.xen().memory_op(operation.of(&mut argument)) };
        (answer == Ok(1)).then_some(list[0])
    }

    /// Searches the M2P for a backing that an exchange did not report: `find r0`.
    pub fn find(&mut self, mut words: Words<'_>) -> Option<AnswerLine> {
        let index = *words::frames(words.next()?)?.start();
        let old = self.backing[index as usize];
        // Another domain may have a frame with the same number.
        let mut fits = |frame| frame != old && self.owns(frame);
        let found = self.guest.find(self.pfn(index), &mut fits);
        let mut line = AnswerLine::answer(found.map(|_| 0).ok_or(XenErrno::ENOENT));
        if let Some(frame) = found {
            self.set_backing(index, frame);
        }
        self.add_state(&mut line, u32::from(found.is_some()) << index);
        Some(line)
    }
}
