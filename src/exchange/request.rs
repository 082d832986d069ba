//! The arguments and the result of an exchange, and the checks before anything moves.

use super::error::ExchangeError;
use super::part::Part;
use crate::addr::Order;
use crate::frames::FrameRun;

/// What to do if Xen refuses a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// All or nothing: exchange the new extents for extents anywhere. A part that may lie
    /// [anywhere](super::Placement::ANYWHERE) keeps them: they are ordinary memory.
    ///
    /// Takes a hypercall per part. If Xen has no other extents of that order, smaller ones take a
    /// hypercall each time that [`Lists::extents`] is full.
    #[default]
    Undo,
    /// Keep what was exchanged before the refusal.
    Return,
}

/// Memory that the caller lends for the time of an exchange.
///
/// Xen must be able to read and write it. Any mapped memory of the guest outside the run serves
/// ([M3](crate::rules#M3)).
#[derive(Debug)]
pub struct Lists<'l> {
    /// One entry per frame of the run, for the machine frames that back it.
    pub backing: &'l mut [u64],
    /// One entry per extent that Xen returns, for the part with the most of them. With 512 entries, an
    /// undo can always use smaller extents.
    pub extents: &'l mut [u64],
}

/// How far an exchange came.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// The run, mapped.
    pub run: FrameRun,
    /// The number of frames that were exchanged, counted through the parts in order. They are not
    /// zeroed.
    pub done: u64,
    /// Why Xen refused the rest, if it did.
    pub error: Option<ExchangeError>,
}

/// Checks that the request makes sense. Nothing has moved yet.
pub(super) fn check(
    run: &FrameRun,
    parts: &[Part],
    lists: &Lists<'_>,
    limit: Order,
) -> Result<(), ExchangeError> {
    has_room(run.frames(), lists.backing)?;
    let mut free_from = 0;
    for part in parts {
        // The parts are in order and apart, so no frame is named twice
        // ([C33](crate::conformance#C33)).
        let end = part.end().filter(|end| *end <= run.frames());
        match end {
            Some(end) if part.first() >= free_from && part.frames() > 0 => free_from = end,
            _ => {
                let (first, frames, run) = (part.first(), part.frames(), run.frames());
                return Err(ExchangeError::BadPart { first, frames, run });
            }
        }
        if part.order() > limit {
            return Err(ExchangeError::OrderNotPermitted { order: part.order() });
        }
        has_room(part.out_extents(), lists.extents)?;
    }
    Ok(())
}

/// Checks that a list has `needed` entries.
pub(super) const fn has_room(needed: u64, list: &[u64]) -> Result<(), ExchangeError> {
    let len = list.len();
    if needed > len as u64 { Err(ExchangeError::ListTooShort { needed, len }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::exchange::part::Placement;

    const LIMIT: Order = match Order::new(4) {
        Ok(order) => order,
        Err(_) => Order::ZERO,
    };

    fn checked(parts: &[Part]) -> Result<(), ExchangeError> {
        // SAFETY: a test's frames are numbers only; no other value owns them
        // ([M1](crate::rules#M1)).
        let run = unsafe { FrameRun::new(Pfn::new(64), 32) };
        let lists = Lists { backing: &mut [0; 32], extents: &mut [0; 16] };
        check(&run, parts, &lists, LIMIT)
    }

    fn gather(first: u64, extents: u64, order: u32) -> Part {
        Part::gather(first, extents, Order::new(order).unwrap(), Placement::ANYWHERE)
    }

    #[test]
    fn parts_in_order_and_within_the_run_are_accepted() {
        assert_eq!(checked(&[]), Ok(()));
        assert_eq!(checked(&[gather(0, 2, 4)]), Ok(()));
        let several = [gather(0, 1, 3), Part::replace(8, 8), Part::scatter(16, LIMIT)];
        assert_eq!(checked(&several), Ok(()));
    }

    #[test]
    fn a_part_that_no_run_can_satisfy_is_refused() {
        let max = u64::MAX;
        for part in [
            gather(max, 1, 0),
            gather(0, max, 4),
            gather(max, max, 4),
            gather(31, 1, 1),
            gather(0, 0, 2),
            Part::replace(1, max),
            Part::replace(32, 1),
            Part::scatter(max - 3, Order::new(2).unwrap()),
        ] {
            let (first, frames) = (part.first(), part.frames());
            assert_eq!(checked(&[part]), Err(ExchangeError::BadPart { first, frames, run: 32 }));
        }
        let overlapping = [Part::replace(0, 8), Part::replace(7, 1)];
        let refused = ExchangeError::BadPart { first: 7, frames: 1, run: 32 };
        assert_eq!(checked(&overlapping), Err(refused));
    }

    #[test]
    fn a_list_that_is_too_short_and_an_order_above_the_limit_are_refused() {
        let refused = ExchangeError::ListTooShort { needed: 17, len: 16 };
        assert_eq!(checked(&[Part::replace(0, 17)]), Err(refused));
        let order = Order::new(5).unwrap();
        assert_eq!(checked(&[gather(0, 1, 5)]), Err(ExchangeError::OrderNotPermitted { order }));
    }
}
