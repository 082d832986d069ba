//! The decoder of Xen's reply to an exchange.

use hypercall::XenErrno;
use xen_contig::addr::{Mfn, Order, Pfn};
use xen_contig::exchange::{ExchangeReply, Part, PartOutcome, Placement, Rest};

use super::Target;
use super::bytes::Bytes;

pub const TARGET: Target = Target {
    name: "answer",
    run,
    max_len: 33,
    words: &[&[0xea, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xf2, 0xff], &[16, 0, 0, 0]],
    seeds: || vec![vec![0; 33], vec![0xff; 33]],
};

/// The first frame of the part.
const FIRST: Pfn = Pfn::new(0x1000);

fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let (raw, nr_exchanged) = (bytes.u64() as i64, bytes.u64());
    let (extents, order) = (bytes.u64() % 33, (bytes.u64() % 10) as u32);
    let flags = bytes.u8();

    let result = XenErrno::check(raw);
    match result {
        Ok(value) => assert_eq!(i64::try_from(value), Ok(raw)),
        Err(errno) if (-4095..0).contains(&raw) => assert_eq!(i64::from(errno.raw()), -raw),
        Err(errno) => assert!(raw < -4095 && errno == XenErrno::EOVERFLOW),
    }

    let order = Order::new(order).expect("below 10");
    let part = match flags & 2 {
        0 => Part::gather(0, extents, order, Placement::ANYWHERE),
        _ => Part::scatter(0, order),
    };
    let (untouched, aligned) = (flags & 1 == 0, flags & 4 == 0);
    let entry = |index: u64| match untouched {
        true => FIRST.number() + (index << part.output().get()),
        false => (1 << 30) + (index << part.output().get()) + u64::from(!aligned),
    };
    let out_list: Vec<u64> = (0..part.frames() >> part.output().get()).map(entry).collect();

    let outcome = ExchangeReply { result, nr_exchanged }.outcome(FIRST, &part, &out_list);
    let PartOutcome { exchanged, rest } = outcome;
    let chunk = part.input().max(part.output());
    let what = format!("{outcome:?} of {part:?}");
    assert!(exchanged <= part.frames() && exchanged.is_multiple_of(chunk.frames()), "{what}");
    let counted = nr_exchanged.checked_mul(part.input().frames());
    assert!(exchanged == 0 || counted == Some(exchanged), "{what}, {nr_exchanged} counted");
    match rest {
        Rest::Complete => assert!(result.is_ok() && exchanged == part.frames(), "{what}"),
        Rest::Refused(errno) => {
            assert_eq!(result, Err(errno), "{what}");
            assert!(exchanged < part.frames() && errno != XenErrno::EFAULT, "{what}");
            assert!(untouched, "{what}: refused although frames changed");
        }
        Rest::Torn(errno) => assert_eq!(result.err(), errno, "{what}"),
        Rest::BadExtent(mfn) => {
            assert_eq!(exchanged, 0, "{what}");
            assert!(!mfn.is_aligned(part.output()), "{what}");
        }
    }
    if exchanged > 0 {
        let good = |entry: &u64| Mfn::new(*entry).is_aligned(part.output());
        let named = (exchanged >> part.output().get()) as usize;
        assert!(out_list[..named].iter().all(good), "{what}: an unaligned extent is accepted");
    }
}
