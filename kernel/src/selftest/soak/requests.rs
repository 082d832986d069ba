//! Random requests: mostly small and easy, sometimes odd or impossible.

use xen_contig::addr::Order;
use xen_contig::dma::{ConstraintError, Constraints, Sleep};
use xen_contig::exchange::Node;

use super::random::SoakRandom;
use crate::selftest::dma::helpers::PAGE;

/// The maximum number of segments of a random device.
const MAX_SEGMENTS: usize = 16;

/// Returns a random size.
pub fn size(random: &mut SoakRandom) -> u64 {
    match random.below(1000) {
        0..350 => random.within(1, 4 * PAGE),
        350..850 => random.within(1, 16 * PAGE),
        850..970 => random.within(1, 64 * PAGE),
        970..993 => random.within(1, 256 * PAGE),
        // Up to order 10, which an ordinary domU can get only in segments.
        993..998 => random.within(1, 600 * PAGE),
        998 => 0,
        _ => Order::MAX.bytes() + random.below(2),
    }
}

/// Returns random constraints for `size` bytes, which may contradict each other. Free memory seldom
/// meets them without an exchange.
pub fn constraints(random: &mut SoakRandom, size: u64) -> Result<Constraints, ConstraintError> {
    let mut it = Constraints::builder();
    match random.below(100) {
        0..50 => {}
        50..70 => it = it.mask(0xffff_ffff),
        70..85 => it = it.mask((1 << random.within(24, 34)) - 1),
        85..97 => it = it.mask(random.within(64 << 20, 8 << 30)),
        _ => it = it.mask(random.within(0, 4 << 20)),
    }
    if random.chance(5) {
        it = it.lowest(random.within(0, 256 << 20));
    }
    let natural = size.clamp(1, 256 * PAGE).next_power_of_two();
    match random.below(100) {
        0..35 => it = it.align(natural),
        35..45 => it = it.align(1 << random.below(18)),
        _ => {}
    }
    match random.below(100) {
        0..10 => it = it.boundary(1 << random.within(12, 22)),
        10..20 => it = it.boundary(natural),
        _ => {}
    }
    match random.below(100) {
        // A device that supports scatter-gather.
        0..30 => {
            let segment = random.within(size / 8, size).max(PAGE);
            it = it.max_segment(segment).max_segments(MAX_SEGMENTS).align(1);
        }
        30..40 => it = it.max_segments(random.within(1, MAX_SEGMENTS as u64) as usize),
        40..45 => it = it.max_segment(random.within(1, 64 * PAGE)),
        _ => {}
    }
    match random.below(100) {
        0..5 => it = it.node(Node::Near(random.below(2) as u8)),
        5 => it = it.node(Node::Exactly(0)),
        _ => {}
    }
    if random.chance(5) {
        it = it.sleep(Sleep::MustNot);
    }
    it.build()
}
