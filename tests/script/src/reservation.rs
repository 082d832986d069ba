//! `decrease`, `populate` and `increase`: memory given up and got without the exchange.

use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};

use crate::exchange::{reservation, written};
use crate::line::Line;
use crate::scene::{Call, Scene};
use crate::words::{self, Words, cut, extents, number};
use crate::{FRAMES, Ground};

/// An operation on a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Decrease,
    Populate,
    Increase,
}

impl Operation {
    const fn of(self, argument: &mut MemoryReservation) -> MemoryOp<'_> {
        match self {
            Self::Decrease => MemoryOp::DecreaseReservation(argument),
            Self::Populate => MemoryOp::PopulatePhysmap(argument),
            Self::Increase => MemoryOp::IncreaseReservation(argument),
        }
    }
}

/// The largest extent that is asked for to fill the domain up.
const FILLING: u32 = 9;

impl<G: Ground> Scene<'_, G> {
    /// `populate 1x3 r0 bits=30 domain=self`
    pub fn reserve(&mut self, mut words: Words<'_>, operation: Operation) -> Call {
        let extents = extents(&mut words, self.ground.limit())?;
        let comes = operation != Operation::Decrease;
        let mut list = self.list(&extents, comes)?;
        let before = list;
        let mut argument = reservation(&extents, &mut list);
        for (key, value) in words.map_while(|word| cut(word, b'=')) {
            match key {
                "bits" => argument.mem_flags = number(value)? as u32,
                "domain" => argument.domid = self.domain(value)?,
                _ => return None,
            }
        }
        // A list that is too short is one that Xen refuses for its length alone.
        if extents.count > FRAMES && extents.count < 1 << 26 {
            return None;
        }
        // SAFETY: the run is the script's, and nothing of Rust's lies in it (M1). The list lives
        // across the call (M3).
        let answer = unsafe { self.ground.xen().memory_op(operation.of(&mut argument)) };
        let mut line = Line::answer(answer);
        let wrote = written(&before, &list);
        line.set(" wrote ", "", wrote);
        let moved = match comes {
            true => self.take_over(&mut line, &before, &list, wrote, extents.order),
            false => 0,
        };
        self.tell(&mut line, moved);
        Some(line)
    }

    /// `current_reservation own`, which is not a number to write down.
    pub fn current_reservation(&mut self, mut words: Words<'_>) -> Call {
        let domain = self.domain(words.next()?)?;
        // SAFETY: asks for a number.
        let answer = unsafe { self.ground.xen().memory_op(MemoryOp::CurrentReservation(domain)) };
        Some(Line::answer(answer.map(|_| 0)))
    }

    /// `fill`: takes memory until the domain has as much as it may.
    pub fn fill(&mut self) -> Call {
        let ask = |op| {
            // SAFETY: asks for a number.
            unsafe { self.ground.xen().memory_op(op) }.ok()
        };
        let maximum = ask(MemoryOp::MaximumReservation(DomId::SELF))?;
        let slack = maximum.checked_sub(ask(MemoryOp::CurrentReservation(DomId::SELF))?)?;
        if slack >> FILLING > 1 {
            return Some(Line::malformed("there is no maximum within reach"));
        }
        // In a translated guest what comes needs a place, or it can't be named to go back.
        let operation = match self.ground.is_translated() {
            true => Operation::Populate,
            false => Operation::Increase,
        };
        for order in (0..=FILLING).filter(|order| slack >> order & 1 != 0) {
            match self.one(order, self.ground.hole() + (1 << order), operation) {
                Some(first) => self.filling.push((first, order)),
                None => return Some(Line::malformed("Xen has no memory to fill the domain up")),
            }
        }
        Some(Line::answer(Ok(0)))
    }

    /// `drain`: undoes `fill`.
    pub fn drain(&mut self) -> Call {
        for (first, order) in core::mem::take(&mut self.filling) {
            self.one(order, first, Operation::Decrease)?;
        }
        Some(Line::answer(Ok(0)))
    }

    /// Gets or gives up an extent that is not the run's. Answers what it is named by.
    fn one(&mut self, order: u32, first: u64, operation: Operation) -> Option<u64> {
        let mut list = [first; FRAMES as usize];
        let extents = words::Extents { count: 1, order, names: Default::default() };
        let mut argument = reservation(&extents, &mut list);
        // SAFETY: what comes is used by nobody, and so is what goes.
        let answer = unsafe { self.ground.xen().memory_op(operation.of(&mut argument)) };
        (answer == Ok(1)).then_some(list[0])
    }

    /// `find r0`: looks in the M2P for what an exchange has put beneath a frame without saying so.
    pub fn find(&mut self, mut words: Words<'_>) -> Call {
        let index = *words::frames(words.next()?)?.start();
        let old = self.beneath[index as usize];
        // Another guest may have a frame of that number, too.
        let mut fits = |frame| frame != old && self.is_ours(frame);
        let found = self.ground.find(self.pfn(index), &mut fits);
        let mut line = Line::answer(found.map(|_| 0).ok_or(XenErrno::ENOENT));
        if let Some(frame) = found {
            self.adopt(index, frame);
        }
        self.tell(&mut line, u32::from(found.is_some()) << index);
        Some(line)
    }
}
