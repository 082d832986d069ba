//! The memory map: regions of physical memory and what they are for.

use super::error::{Problem, StartInfoError};

/// What a region is for, as ACPI's address range types say it
/// (`XEN_HVM_MEMMAP_TYPE_…` in `xen/include/public/arch-x86/hvm/start_info.h`; the
/// entries of `XENMEM_memory_map` use the same numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Ordinary memory.
    Ram,
    /// Not to be used.
    Reserved,
    /// ACPI tables, free once they have been read.
    Acpi,
    /// ACPI non-volatile storage.
    Nvs,
    /// Memory with errors.
    Unusable,
    /// A type that this crate has no name for: not to be used either.
    Other(u32),
}

impl From<u32> for MemoryKind {
    fn from(kind: u32) -> Self {
        match kind {
            1 => Self::Ram,
            2 => Self::Reserved,
            3 => Self::Acpi,
            4 => Self::Nvs,
            5 => Self::Unusable,
            other => Self::Other(other),
        }
    }
}

/// A region of (pseudo-)physical memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First address.
    pub start: u64,
    /// Length. Not zero, and `start + len` does not overflow, in a region that
    /// passed [`check`].
    pub len: u64,
    /// What the region is for.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// The first address past the region; the highest address where that overflows.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// Judges a whole map: no empty region, none that leaves 64 bits, and no region
/// that shares addresses with RAM. Regions that are no RAM may overlap each other,
/// and no order is asked for.
///
/// The start-info readers have done this; it is public for maps that come from
/// `XENMEM_memory_map`.
pub fn check(regions: &[MemoryRegion]) -> Result<(), StartInfoError> {
    for (index, region) in regions.iter().enumerate() {
        let MemoryRegion { start, len, kind } = *region;
        if len == 0 {
            return Err(StartInfoError::new("memmap.size", len, Problem::Zero).at(index));
        }
        if start.checked_add(len).is_none() {
            let problem = Problem::Overflow { len };
            return Err(StartInfoError::new("memmap.addr", start, problem).at(index));
        }
        let clash = regions[..index].iter().position(|earlier| {
            let ram = [kind, earlier.kind].contains(&MemoryKind::Ram);
            ram && region.overlaps(earlier)
        });
        if let Some(other) = clash {
            let problem = Problem::Overlaps { other };
            return Err(StartInfoError::new("memmap.addr", start, problem).at(index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use MemoryKind::*;

    fn region(start: u64, len: u64, kind: MemoryKind) -> MemoryRegion {
        MemoryRegion { start, len, kind }
    }

    #[test]
    fn kinds_are_the_numbers_of_the_header() {
        let kinds: [MemoryKind; 8] = core::array::from_fn(|kind| (kind as u32).into());
        assert_eq!(kinds, [Other(0), Ram, Reserved, Acpi, Nvs, Unusable, Other(6), Other(7)]);
        assert_eq!(MemoryKind::from(!0), Other(!0));
    }

    #[test]
    fn neighbours_and_overlaps_without_ram_are_fine() {
        let map = [
            region(0x1000, 0x1000, Ram),
            region(0, 0x1000, Ram),
            region(0x2000, !0 - 0x2000, Reserved),
            region(0x2000, 1, Nvs),
        ];
        assert_eq!(check(&map), Ok(()));
        assert_eq!(map[2].end(), !0);
        assert_eq!(check(&[]), Ok(()));
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        let good = region(0x1000, 0x1000, Ram);
        let error = check(&[good, region(0x9000, 0, Reserved)]).unwrap_err();
        assert_eq!(error, StartInfoError::new("memmap.size", 0, Problem::Zero).at(1));

        let error = check(&[region(!0, 1, Reserved)]).unwrap_err();
        assert_eq!(
            error,
            StartInfoError::new("memmap.addr", !0, Problem::Overflow { len: 1 }).at(0)
        );
    }

    #[test]
    fn any_overlap_with_ram_is_refused_in_either_order() {
        let ram = region(0x1000, 0x1000, Ram);
        for other in [
            region(0x1fff, 1, Reserved),
            region(0, 0x1001, Acpi),
            region(0, 0x9000, Ram),
            region(0x1400, 0x10, Other(9)),
            ram,
        ] {
            for map in [[ram, other], [other, ram]] {
                let error = check(&map).unwrap_err();
                assert_eq!((error.field, error.index), ("memmap.addr", Some(1)));
                assert_eq!(error.problem, Problem::Overlaps { other: 0 });
            }
        }
    }
}
