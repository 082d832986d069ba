//! What Xen's answer to an exchange of one chunk means: total over every answer there can be.

use hypercall::XenErrno;

/// What happened to the one chunk of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exchanged; the out list names the new frames.
    Exchanged,
    /// Refused, and everything is as before.
    Untouched(XenErrno),
    /// Failed behind the commit point, or answered what can't be: the frames may be gone.
    Torn(Option<XenErrno>),
}

/// Decodes `(rc, nr_exchanged)` of a call that asked for `requested` in-extents in one chunk, and
/// whether the out list still reads as it was handed over.
///
/// From `memory_exchange` in `xen/common/memory.c`, 4.17 to master:
/// * 0 comes with the full count, except for a domain that is dying (C58);
/// * up to the commit point every error leaves the chunk as it was;
/// * behind it `EFAULT` means that the out list could not be read or written (C50, C51), and
///   `guest_physmap_add_page` may fail with an errno that also stands for a refusal (C52): then the
///   out list has been overwritten.
pub fn decode(
    rc: Result<u64, XenErrno>,
    nr_exchanged: u64,
    requested: u64,
    out_list_untouched: bool,
) -> Outcome {
    match rc {
        Ok(_) if nr_exchanged == requested => Outcome::Exchanged,
        Ok(_) => Outcome::Torn(None),
        Err(errno) if errno == XenErrno::EFAULT || nr_exchanged != 0 || !out_list_untouched => {
            Outcome::Torn(Some(errno))
        }
        Err(errno) => Outcome::Untouched(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_full_count_is_a_success() {
        assert_eq!(decode(Ok(0), 8, 8, false), Outcome::Exchanged);
        // An extent whose machine number happens to be the Pfn reads as untouched; still a success.
        assert_eq!(decode(Ok(0), 8, 8, true), Outcome::Exchanged);
        for count in [0, 7, 9, u64::MAX] {
            assert_eq!(decode(Ok(0), count, 8, true), Outcome::Torn(None), "{count}");
        }
    }

    #[test]
    fn a_refusal_is_one_that_touched_nothing() {
        for raw in 1..4096 {
            let errno = XenErrno::from_raw(raw).unwrap();
            let untouched = decode(Err(errno), 0, 8, true);
            if errno == XenErrno::EFAULT {
                assert_eq!(untouched, Outcome::Torn(Some(errno)));
            } else {
                assert_eq!(untouched, Outcome::Untouched(errno));
            }
            assert_eq!(decode(Err(errno), 0, 8, false), Outcome::Torn(Some(errno)));
            assert_eq!(decode(Err(errno), 8, 8, true), Outcome::Torn(Some(errno)));
        }
    }
}
