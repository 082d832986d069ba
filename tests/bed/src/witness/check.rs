//! Holds a claim against what was asked, and against memory. Pure, so that it can be shown to
//! say no.

use crate::guest::{ProbeClaim, ProbeRequest};

const PAGE: u64 = 4096;
const COMPLEMENT_AT: usize = 4088;

/// What is wrong with a claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FalseClaim {
    /// The guest answers another question.
    #[error("the guest was asked for {asked:?} and claims {claimed:?}")]
    NotAsAsked {
        /// The question.
        asked: ProbeRequest,
        /// The answer.
        claimed: ProbeRequest,
    },
    /// Not `1 << order` pages.
    #[error("order {order} is not {pages} pages")]
    Pages {
        /// The order.
        order: u32,
        /// The pages claimed.
        pages: u64,
    },
    /// Not aligned to its own size.
    #[error("machine address {maddr:#x} is not aligned to {size:#x}")]
    Misaligned {
        /// Where it begins.
        maddr: u64,
        /// Its size.
        size: u64,
    },
    /// Reaches beyond the address limit.
    #[error("{maddr:#x} to {end:#x} is not below 1 << {bits}")]
    OutOfRange {
        /// Where it begins.
        maddr: u64,
        /// The first byte after it.
        end: u128,
        /// The limit.
        bits: u32,
    },
    /// The dump is not as long as the buffer.
    #[error("{found} bytes of memory were read instead of {wanted}")]
    Short {
        /// The bytes read.
        found: usize,
        /// The buffer's size.
        wanted: u64,
    },
    /// A page is not where the claim puts it.
    #[error(
        "page {page}: at machine address {at:#x} there is {found:#018x} instead of {wanted:#018x}"
    )]
    Pattern {
        /// Which page.
        page: u64,
        /// Where was looked.
        at: u64,
        /// What was there.
        found: u64,
        /// What should have been.
        wanted: u64,
    },
}

/// Checks what can be checked without memory, and returns how many bytes there are to read.
pub fn claim(probe: &ProbeClaim, asked: ProbeRequest) -> Result<u64, FalseClaim> {
    let ProbeRequest { order, bits, .. } = probe.request;
    if probe.request != asked {
        return Err(FalseClaim::NotAsAsked { asked, claimed: probe.request });
    }
    if 1u64.checked_shl(order) != Some(probe.pages) {
        return Err(FalseClaim::Pages { order, pages: probe.pages });
    }
    let size = probe.pages * PAGE;
    if !probe.maddr.is_multiple_of(size) {
        return Err(FalseClaim::Misaligned { maddr: probe.maddr, size });
    }
    let end = u128::from(probe.maddr) + u128::from(size);
    if end > 1u128 << bits {
        return Err(FalseClaim::OutOfRange { maddr: probe.maddr, end, bits });
    }
    Ok(size)
}

/// Checks that page `i` really lies at `maddr + i * 4096`, for every page.
pub fn memory(probe: &ProbeClaim, dump: &[u8]) -> Result<(), FalseClaim> {
    let wanted = probe.pages * PAGE;
    if dump.len() as u64 != wanted {
        return Err(FalseClaim::Short { found: dump.len(), wanted });
    }
    for (page, bytes) in (0u64..).zip(dump.chunks_exact(PAGE as usize)) {
        let first = probe.request.seed.wrapping_add(page);
        for (offset, wanted) in [(0, first), (COMPLEMENT_AT, !first)] {
            let word = bytes[offset..offset + 8].try_into().expect("eight bytes");
            let found = u64::from_le_bytes(word);
            if found != wanted {
                let at = probe.maddr + page * PAGE + offset as u64;
                return Err(FalseClaim::Pattern { page, at, found, wanted });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: ProbeRequest = ProbeRequest { order: 2, bits: 20, seed: u64::MAX - 1 };

    fn honest() -> (ProbeClaim, Vec<u8>) {
        let probe = ProbeClaim { request: ASKED, pages: 4, maddr: 0x3_c000, pfn: 9 };
        let mut dump = vec![0xa5; 4 * 4096];
        for page in 0..4 {
            let first = ASKED.seed.wrapping_add(page as u64);
            dump[page * 4096..][..8].copy_from_slice(&first.to_le_bytes());
            dump[page * 4096 + 4088..][..8].copy_from_slice(&(!first).to_le_bytes());
        }
        (probe, dump)
    }

    #[test]
    fn an_honest_guest_is_believed() {
        let (probe, dump) = honest();
        assert_eq!(claim(&probe, ASKED), Ok(4 * 4096));
        assert_eq!(memory(&probe, &dump), Ok(()));
    }

    #[test]
    fn scattered_pages_are_seen() {
        let (probe, mut dump) = honest();
        let (low, high) = dump.split_at_mut(2 * 4096);
        low[4096..].swap_with_slice(&mut high[..4096]);
        assert!(matches!(
            memory(&probe, &dump),
            Err(FalseClaim::Pattern { page: 1, at: 0x3_d000, .. })
        ));
    }

    #[test]
    fn one_wrong_bit_is_seen_at_either_end_of_any_page() {
        for at in [0, 7, 4088, 4095, 3 * 4096, 3 * 4096 + 4095] {
            let (probe, mut dump) = honest();
            dump[at] ^= 0x10;
            let fault = memory(&probe, &dump).unwrap_err();
            assert!(matches!(fault, FalseClaim::Pattern { page, .. } if page == at as u64 / 4096));
        }
    }

    #[test]
    fn a_dump_cut_short_is_seen() {
        let (probe, dump) = honest();
        assert!(matches!(
            memory(&probe, &dump[..4096]),
            Err(FalseClaim::Short { found: 4096, .. })
        ));
    }

    #[test]
    fn claims_that_can_t_be_true() {
        let with = |change: fn(&mut ProbeClaim)| {
            let (mut probe, _) = honest();
            change(&mut probe);
            claim(&probe, ASKED).unwrap_err()
        };
        assert!(matches!(with(|p| p.pages = 3), FalseClaim::Pages { .. }));
        assert!(matches!(with(|p| p.maddr = 0x3_d000), FalseClaim::Misaligned { .. }));
        assert!(matches!(with(|p| p.maddr = 0x10_0000), FalseClaim::OutOfRange { .. }));
        assert!(matches!(with(|p| p.request.seed = 5), FalseClaim::NotAsAsked { .. }));
        assert!(matches!(with(|p| p.request.order = 40), FalseClaim::NotAsAsked { .. }));
    }

    #[test]
    fn the_very_top_of_the_range_is_allowed() {
        let (mut probe, _) = honest();
        probe.maddr = 0xf_c000;
        assert_eq!(claim(&probe, ASKED), Ok(4 * 4096));
    }
}
