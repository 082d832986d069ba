//! Decodes Xen's reply to an exchange. Every possible reply has a meaning.

use hypercall::XenErrno;

use super::part::Part;
use crate::addr::{Mfn, Pfn};

/// A machine frame number has at most 40 bits: a page-table entry has no room for more, and would
/// silently lose the rest.
pub(super) const FRAME_LIMIT: u64 = 1 << 40;

/// Xen's reply to the exchange of one part. The out-list belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeReply {
    /// What the hypercall returned.
    pub result: Result<u64, XenErrno>,
    /// The in-extents that Xen counted as exchanged.
    pub nr_exchanged: u64,
}

/// What became of the frames of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    /// Frames that were exchanged: whole chunks, from the first on.
    pub exchanged: u64,
    /// What became of the rest.
    pub rest: Rest,
}

/// What became of the first chunk that Xen did not count as exchanged, and of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is no such chunk.
    Complete,
    /// Xen refused it, and changed nothing.
    Refused(XenErrno),
    /// Xen failed after the commit point, or the reply contradicts itself: the frames of the chunk
    /// may be gone. With the error, if Xen returned one.
    Torn(Option<XenErrno>),
    /// Xen reported this frame, which cannot be the first of an extent that was asked for.
    BadExtent(Mfn),
}

impl ExchangeReply {
    /// Returns what the reply means for a part whose first frame is `first`.
    pub fn outcome(&self, first: Pfn, part: &Part, out_list: &[u64]) -> PartOutcome {
        self.outcome_of(part, out_list, |index| asked_for(first, part, index))
    }

    /// Returns what the reply means if `asked` returns what the out-list said of an extent.
    pub(super) fn outcome_of(
        &self,
        part: &Part,
        out_list: &[u64],
        asked: impl Fn(usize) -> u64,
    ) -> PartOutcome {
        let per_chunk = part.order().frames() >> part.input().get();
        let outs_per_chunk = (part.order().frames() >> part.output().get()) as usize;
        let (exchanged, rest) =
            self.decode(part.frames() >> part.input().get(), per_chunk, |done| {
                let start = ((done << part.input().get()) >> part.output().get()) as usize;
                let mut chunk = out_list.iter().enumerate().skip(start).take(outs_per_chunk);
                chunk.all(|(index, entry)| *entry == asked(index))
            });
        let exchanged = exchanged << part.input().get();
        let reported = out_list.iter().take((exchanged >> part.output().get()) as usize);
        match reported.map(|entry| Mfn::new(*entry)).find(|mfn| !is_possible(*mfn, part)) {
            Some(mfn) => PartOutcome { exchanged: 0, rest: Rest::BadExtent(mfn) },
            None => PartOutcome { exchanged, rest },
        }
    }

    /// Returns how many in-extents were exchanged, and what became of the rest.
    ///
    /// `untouched(n)` tells whether the chunk after `n` in-extents reads in the out-list as it was
    /// handed to Xen. From `memory_exchange` in `xen/common/memory.c`, 4.17 to master:
    /// * 0 comes with the full count, unless the domain is dying ([C58](crate::conformance#C58));
    /// * up to the commit point, every error leaves the chunk as it was;
    /// * past it, `EFAULT` means that Xen could not read or write the out-list
    ///   ([C50](crate::conformance#C50), [C51](crate::conformance#C51)). `guest_physmap_add_page` may
    ///   fail with an error that also stands for a refusal ([C52](crate::conformance#C52)): then Xen
    ///   has overwritten the out-list;
    /// * the count is of whole chunks, and never more than was asked for.
    fn decode(
        &self,
        extents: u64,
        per_chunk: u64,
        untouched: impl FnOnce(u64) -> bool,
    ) -> (u64, Rest) {
        let Self { result, nr_exchanged } = *self;
        if nr_exchanged > extents || !nr_exchanged.is_multiple_of(per_chunk) {
            return (0, Rest::Torn(result.err()));
        }
        let rest = match result {
            Ok(_) if nr_exchanged == extents => Rest::Complete,
            Ok(_) => Rest::Torn(None),
            Err(errno) if errno == XenErrno::EFAULT || nr_exchanged == extents => {
                Rest::Torn(Some(errno))
            }
            Err(errno) if untouched(nr_exchanged) => Rest::Refused(errno),
            Err(errno) => Rest::Torn(Some(errno)),
        };
        (nr_exchanged, rest)
    }
}

/// Returns what the out-list says to Xen: the guest frame for an extent of a part whose first frame
/// is `first`.
pub(super) const fn asked_for(first: Pfn, part: &Part, index: usize) -> u64 {
    first.add((index as u64) << part.output().get()).number()
}

/// Returns true if an extent that satisfies the part can begin at `mfn`.
fn is_possible(mfn: Mfn, part: &Part) -> bool {
    let limit = part.placement().bits.frame_limit().min(FRAME_LIMIT);
    let end = mfn.number().checked_add(part.output().frames());
    mfn.is_aligned(part.output()) && end.is_some_and(|end| end <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a reply to a call of 8 in-extents.
    fn decode(
        result: Result<u64, XenErrno>,
        nr_exchanged: u64,
        per_chunk: u64,
        untouched: bool,
    ) -> (u64, Rest) {
        ExchangeReply { result, nr_exchanged }.decode(8, per_chunk, |_| untouched)
    }

    #[test]
    fn only_the_full_count_is_a_success() {
        assert_eq!(decode(Ok(0), 8, 8, false), (8, Rest::Complete));
        // An extent whose machine frame has the number of the guest frame reads as untouched. It is
        // a success all the same.
        assert_eq!(decode(Ok(0), 8, 2, true), (8, Rest::Complete));
        for count in [0, 2, 6] {
            assert_eq!(decode(Ok(0), count, 2, true), (count, Rest::Torn(None)), "{count}");
        }
    }

    #[test]
    fn a_count_that_is_impossible_is_not_believed_at_all() {
        for count in [1, 3, 7, 9, 10, u64::MAX] {
            for result in [Ok(0), Err(XenErrno::ENOMEM)] {
                let torn = (0, Rest::Torn(result.err()));
                assert_eq!(decode(result, count, 2, true), torn, "{count}");
            }
        }
    }

    #[test]
    fn a_refusal_is_one_that_touched_nothing() {
        for errno in (1..4096).filter_map(XenErrno::from_raw) {
            let torn = Rest::Torn(Some(errno));
            for exchanged in [0, 4] {
                let rest = match errno {
                    XenErrno::EFAULT => torn,
                    errno => Rest::Refused(errno),
                };
                assert_eq!(decode(Err(errno), exchanged, 2, true), (exchanged, rest));
                assert_eq!(decode(Err(errno), exchanged, 2, false), (exchanged, torn));
            }
            assert_eq!(decode(Err(errno), 8, 8, true), (8, torn));
        }
    }
}
