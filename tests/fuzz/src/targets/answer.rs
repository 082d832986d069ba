//! What Xen's answer to an exchange is taken for.

use hypercall::XenErrno;
use xen_contig::exchange::{Fate, Outcome, Request, decode};

use super::Target;
use super::bytes::Bytes;

pub const TARGET: Target = Target {
    name: "answer",
    run,
    max_len: 33,
    words: &[&[0xea, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xf2, 0xff], &[16, 0, 0, 0]],
    seeds: || vec![vec![0; 33], vec![0xff; 33]],
};

fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let (raw, nr_exchanged) = (bytes.u64() as i64, bytes.u64());
    let request = Request { extents: bytes.u64(), per_chunk: bytes.u64() };
    let untouched = bytes.u8() & 1 == 0;

    let rc = XenErrno::check(raw);
    match rc {
        Ok(value) => assert_eq!(i64::try_from(value), Ok(raw)),
        Err(errno) if (-4095..0).contains(&raw) => assert_eq!(i64::from(errno.raw()), -raw),
        Err(errno) => assert!(raw < -4095 && errno == XenErrno::EOVERFLOW),
    }

    let mut asked = None;
    let outcome = decode(rc, nr_exchanged, request, |at| {
        asked = Some(at);
        untouched
    });
    let Request { extents, per_chunk } = request;
    let Outcome { exchanged, fate } = outcome;
    assert!(exchanged <= extents, "{outcome:?} of {request:?}");
    assert!(per_chunk == 0 || exchanged.is_multiple_of(per_chunk), "{outcome:?} of {request:?}");
    assert!(exchanged == 0 || exchanged == nr_exchanged, "{outcome:?} of {nr_exchanged}");
    match fate {
        Fate::Complete => assert!(rc.is_ok() && exchanged == extents, "{outcome:?}"),
        Fate::Refused(errno) => {
            assert_eq!((rc, asked), (Err(errno), Some(exchanged)));
            assert!(untouched && exchanged < extents && errno != XenErrno::EFAULT, "{outcome:?}");
        }
        Fate::Torn(errno) => assert_eq!(rc.err(), errno),
    }
    if rc.is_ok() {
        assert_eq!(fate == Fate::Complete, nr_exchanged == extents && exchanged == extents);
    }
}
