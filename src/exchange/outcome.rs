//! What Xen's answer to an exchange means: total over every answer there can be.

use hypercall::XenErrno;

/// What became of the extents of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// In-extents that were exchanged, from the first on.
    pub exchanged: u64,
    /// What became of the chunk behind them.
    pub fate: Fate,
}

/// What became of the first chunk that was not counted as exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// There is none: all went.
    Complete,
    /// Refused. It and all behind it are as before.
    Refused(XenErrno),
    /// It failed behind the commit point, or the answer can't be: its frames may be gone.
    Torn(Option<XenErrno>),
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// In-extents in the list.
    pub extents: u64,
    /// In-extents in a chunk.
    pub per_chunk: u64,
}

/// Decodes `(rc, nr_exchanged)`. `untouched(n)` tells whether the out list reads as it was handed
/// over for the chunk behind `n` in-extents.
///
/// From `memory_exchange` in `xen/common/memory.c`, 4.17 to master:
/// * 0 comes with the full count, except for a domain that is dying (C58);
/// * up to the commit point every error leaves the chunk as it was;
/// * behind it `EFAULT` means that the out list could not be read or written (C50, C51), and
///   `guest_physmap_add_page` may fail with an errno that also stands for a refusal (C52): then the
///   out list has been overwritten;
/// * the count is of whole chunks and never more than was asked for.
pub fn decode(
    rc: Result<u64, XenErrno>,
    nr_exchanged: u64,
    request: Request,
    untouched: impl FnOnce(u64) -> bool,
) -> Outcome {
    let Request { extents, per_chunk } = request;
    if nr_exchanged > extents || !nr_exchanged.is_multiple_of(per_chunk.max(1)) {
        return Outcome { exchanged: 0, fate: Fate::Torn(rc.err()) };
    }
    let fate = match rc {
        Ok(_) if nr_exchanged == extents => Fate::Complete,
        Ok(_) => Fate::Torn(None),
        Err(errno) if errno == XenErrno::EFAULT || nr_exchanged == extents => {
            Fate::Torn(Some(errno))
        }
        Err(errno) if untouched(nr_exchanged) => Fate::Refused(errno),
        Err(errno) => Fate::Torn(Some(errno)),
    };
    Outcome { exchanged: nr_exchanged, fate }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_CHUNK: Request = Request { extents: 8, per_chunk: 8 };
    const FOUR_CHUNKS: Request = Request { extents: 8, per_chunk: 2 };

    #[test]
    fn only_the_full_count_is_a_success() {
        let complete = Outcome { exchanged: 8, fate: Fate::Complete };
        assert_eq!(decode(Ok(0), 8, ONE_CHUNK, |_| false), complete);
        // An extent whose machine number happens to be the Pfn reads as untouched; still a success.
        assert_eq!(decode(Ok(0), 8, FOUR_CHUNKS, |_| true), complete);
        for count in [0, 2, 6] {
            let torn = Outcome { exchanged: count, fate: Fate::Torn(None) };
            assert_eq!(decode(Ok(0), count, FOUR_CHUNKS, |_| true), torn, "{count}");
        }
    }

    #[test]
    fn a_count_that_cannot_be_is_believed_in_no_part() {
        for count in [1, 3, 7, 9, 10, u64::MAX] {
            for rc in [Ok(0), Err(XenErrno::ENOMEM)] {
                let torn = Outcome { exchanged: 0, fate: Fate::Torn(rc.err()) };
                assert_eq!(decode(rc, count, FOUR_CHUNKS, |_| true), torn, "{count}");
            }
        }
    }

    #[test]
    fn a_refusal_is_one_that_touched_nothing() {
        for errno in (1..4096).filter_map(XenErrno::from_raw) {
            for exchanged in [0, 4] {
                let fate = match errno {
                    XenErrno::EFAULT => Fate::Torn(Some(errno)),
                    errno => Fate::Refused(errno),
                };
                let outcome = Outcome { exchanged, fate };
                assert_eq!(decode(Err(errno), exchanged, FOUR_CHUNKS, |_| true), outcome);
                let torn = Outcome { exchanged, fate: Fate::Torn(Some(errno)) };
                assert_eq!(decode(Err(errno), exchanged, FOUR_CHUNKS, |_| false), torn);
            }
            let torn = Outcome { exchanged: 8, fate: Fate::Torn(Some(errno)) };
            assert_eq!(decode(Err(errno), 8, ONE_CHUNK, |_| true), torn);
        }
    }
}
