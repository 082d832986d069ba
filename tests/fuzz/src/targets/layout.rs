//! The constraints of a driver, with any numbers.

use xen_contig::addr::PAGE_SIZE;

use super::Target;
use super::bytes::Bytes;
use crate::scene::BufferRequest;

const PAGE: u64 = PAGE_SIZE as u64;

pub const TARGET: Target = Target {
    name: "layout",
    run,
    max_len: 45,
    words: &[&[0, 0x10, 0, 0], &[0, 0, 0, 0x40], &[0xff; 8]],
    seeds: || {
        vec![vec![0; 45], {
            let mut plain = vec![9, 0, 0x20, 0, 0, 0, 0, 0, 0];
            plain.extend([0xff; 8]);
            plain.extend([0, 0, 0, 0, 0, 0, 0, 0, 12, 16, 0, 0x10, 0, 0, 0, 0, 0, 0, 4]);
            plain
        }]
    },
};

fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let want = BufferRequest {
        bytes: bytes.u64(),
        mask: bytes.u64(),
        lowest: bytes.u64(),
        align: bytes.u8(),
        boundary: bytes.u8(),
        max_segment: bytes.u64(),
        segments: usize::from(bytes.u8()),
        ..BufferRequest::bytes(0)
    };
    let constraints = match want.constraints() {
        Ok(constraints) => constraints,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let placement = constraints.placement();
    let reach = u128::from(constraints.mask()) + 1;
    // If no page below the power of two is in reach, Xen is asked for the next power of two.
    let lowest = u128::from(constraints.lowest()) + u128::from(PAGE);
    let below = 1_u128 << reach.ilog2();
    let narrow = lowest.next_multiple_of(PAGE.into()) <= below || below == reach;
    let bits = if narrow { reach.ilog2() } else { reach.ilog2() + 1 };
    assert_eq!(placement.bits.get(), bits, "{want:?}");
    if let Some(wider) = constraints.wider_placement() {
        assert!(1_u128 << wider.bits.get() > reach, "{want:?}: {wider:?}");
    }
    assert!(!constraints.admits(0, 0));
}
