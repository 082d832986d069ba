//! Tests of allocation errors.

extern crate std;
use std::string::ToString;

use super::*;

#[test]
fn every_error_says_what_failed_and_whether_it_can_pass() {
    type Error = AllocError;
    let order = |order| Order::new(order).unwrap();
    let bits = AddressBits::new(32).unwrap();
    let (size, lowest, mask) = (9, 0x1000, 0xffff);
    let none = ExchangeError::NoMemory { order: order(9), bits, node: Node::Any };
    let never = ExchangeError::NotPermitted;
    let bad = ConstraintError::MaskTooNarrow { mask: 0xfff };
    let short = |limit| Error::SegmentBelowAlignment { segment: 0x1000, align: 0x2000, limit };
    let denied = ExchangeError::OrderNotPermitted { order: order(0) };
    let table = [
        (0, Error::ZeroSize, false, "at least one byte"),
        (
            1,
            Error::TooLarge { size, max: 8 },
            false,
            "9 bytes are more than 8, the most of any buffer",
        ),
        (2, Error::Constraints(bad), false, "mask 0xfff"),
        (
            3,
            Error::OrderNotPermitted { order: order(10), limit: order(9) },
            false,
            "order 10 is needed, Xen permits this domain order 9",
        ),
        (
            4,
            Error::SegmentTooLong { size, max_segment: 8 },
            false,
            "9 bytes are more than one segment of 8: cut smaller objects",
        ),
        (4, Error::SegmentTooLong { size: 8193, max_segment: 8192 }, false, "allow more segments"),
        (5, Error::CrossesBoundary { size, boundary: 8 }, false, "9 bytes cross a multiple of 0x8"),
        (6, short(None), false, "0x1000 bytes cannot each be aligned to 0x2000"),
        (6, short(Some(order(0))), false, "raise Xen's memop-max-order"),
        (
            7,
            Error::TooManySegments { needed: 3, allowed: 2, segment: 16 },
            false,
            "3 segments of up to 0x10 bytes are needed, 2 allowed",
        ),
        (8, Error::NoGuestMemory { frames: 5, in_transactions: 0 }, true, "no 5 free frames"),
        (8, Error::NoGuestMemory { frames: 1, in_transactions: 0 }, true, "no free frame: free"),
        (9, Error::NoListMemory { words: 6 }, true, "lists of 6 words of 8 bytes: free"),
        (10, Error::MustNotSleep, true, "use a pool"),
        (11, Error::OutOfReach { lowest, mask }, true, "none lies between 0x1000 and 0xffff"),
        (
            12,
            Error::LargerThanReach { size, align: 16, lowest, mask },
            false,
            "9 bytes from a multiple of 0x10",
        ),
        (
            13,
            Error::NoFramesInReach { frames: 5, align: 16, lowest, mask },
            true,
            "no 5 free frames in a row from a multiple of 0x10 on between 0x1000 and 0xffff",
        ),
        (
            14,
            Error::NoMemoryOnNode { node: 3, order: order(9), bits },
            true,
            "order 9 below 2^32 on node 3",
        ),
        (15, Error::NodeUnknown { node: 3 }, false, "node 3: use `Node::Near`"),
        (16, Error::Exchange(none), true, "order 9"),
        (16, Error::Exchange(never), false, ""),
        (
            17,
            Error::Lost { frames: 7, error: none },
            true,
            "7 frames of the guest could not be brought back",
        ),
        (17, Error::Lost { frames: 7, error: never }, false, "quarantined"),
        (
            18,
            Error::NoExchange(denied),
            false,
            "permits this domain no exchange: raise memop-max-order",
        ),
        (19, Error::MemoryInUseStays, false, "allocate a buffer and copy"),
        (20, Error::AboveMaximum { current: 9, maximum: 8 }, true, "9 frames and may have 8"),
        (21, Error::RecordsFull { records: 50 }, true, "all 50 records of the device are in use"),
        (22, Error::NoRecordMemory { frames: 1 }, true, "no free frame for records"),
    ];
    let mut next = 0;
    for (place, error, transient, words) in table {
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert_eq!(error.is_transient(), transient, "{text}");
        // A new variant does not compile until it has a place in the table.
        let own = match error {
            Error::ZeroSize => 0,
            Error::TooLarge { .. } => 1,
            Error::Constraints(_) => 2,
            Error::OrderNotPermitted { .. } => 3,
            Error::SegmentTooLong { .. } => 4,
            Error::CrossesBoundary { .. } => 5,
            Error::SegmentBelowAlignment { .. } => 6,
            Error::TooManySegments { .. } => 7,
            Error::NoGuestMemory { .. } => 8,
            Error::NoListMemory { .. } => 9,
            Error::MustNotSleep => 10,
            Error::OutOfReach { .. } => 11,
            Error::LargerThanReach { .. } => 12,
            Error::NoFramesInReach { .. } => 13,
            Error::NoMemoryOnNode { .. } => 14,
            Error::NodeUnknown { .. } => 15,
            Error::Exchange(_) => 16,
            Error::Lost { .. } => 17,
            Error::NoExchange(_) => 18,
            Error::MemoryInUseStays => 19,
            Error::AboveMaximum { .. } => 20,
            Error::RecordsFull { .. } => 21,
            Error::NoRecordMemory { .. } => 22,
        };
        assert_eq!(own, place, "{text}");
        assert!(place <= next, "every variant is in the table");
        next = place + 1;
    }
    assert_eq!(next, 23);
}
