//! The check of memory maps.

use pvh_boot::start_info::memory_map::check;
use pvh_boot::start_info::{MemoryKind, MemoryRegion, Problem};

use super::Target;
use super::bytes::Bytes;

pub const TARGET: Target = Target {
    name: "memory_map",
    run,
    max_len: 20 * 24,
    words: &[&[0xff; 8], &[0; 8], &[1, 0, 0, 0]],
    seeds: || vec![three(), vec![0xff; 40]],
};

/// Returns a map of RAM, a hole and RAM.
fn three() -> Vec<u8> {
    let regions: [(u64, u64, u32); 3] =
        [(0, 0xa_0000, 1), (0xa_0000, 0x6_0000, 2), (0x10_0000, 1 << 30, 1)];
    let bytes = regions.map(|(start, len, kind)| {
        [&start.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
    });
    bytes.concat()
}

fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let mut regions = Vec::new();
    while !bytes.is_empty() {
        let (start, len) = (bytes.u64(), bytes.u64());
        regions.push(MemoryRegion { start, len, kind: MemoryKind::from(bytes.u32()) });
    }
    check_verdict(
        &regions,
        check(&regions).err().map(|error| {
            assert!(!error.to_string().is_empty());
            (error.index(), error.problem())
        }),
    );
}

/// Checks the verdict on a map: the first impossible region and its problem.
pub fn check_verdict(regions: &[MemoryRegion], verdict: Option<(Option<usize>, Problem)>) {
    let range = |region: &MemoryRegion| {
        let start = u128::from(region.start);
        start..start + u128::from(region.len)
    };
    let overlap = |one: &MemoryRegion, other: &MemoryRegion| {
        let (one, other) = (range(one), range(other));
        one.start.max(other.start) < one.end.min(other.end)
    };
    let wrong = regions.iter().enumerate().find_map(|(index, region)| {
        let clash = regions[..index].iter().position(|earlier| {
            let ram = region.kind == MemoryKind::Ram || earlier.kind == MemoryKind::Ram;
            ram && overlap(region, earlier)
        });
        let problem = match (region.len, range(region).end > u128::from(u64::MAX), clash) {
            (0, ..) => Problem::Zero,
            (len, true, _) => Problem::Overflow { len },
            (_, _, Some(other)) => Problem::Overlaps { other },
            _ => return None,
        };
        Some((Some(index), problem))
    });
    assert_eq!(verdict, wrong, "{regions:?}");
}
