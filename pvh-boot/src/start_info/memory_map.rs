//! The memory map: regions of physical memory and their purposes.

use super::error::{Problem, StartInfoError};

/// The purpose of a memory region: an address range type of ACPI.
///
/// The header calls the types `XEN_HVM_MEMMAP_TYPE_…`
/// (`xen/include/public/arch-x86/hvm/start_info.h`). `XENMEM_memory_map` uses the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryKind {
    /// RAM that the kernel may use.
    Ram,
    /// Memory or addresses that the kernel must not use.
    Reserved,
    /// ACPI tables. The kernel may use the memory after it has read them.
    Acpi,
    /// ACPI non-volatile storage. The kernel must not use it.
    Nvs,
    /// Memory with errors. The kernel must not use it.
    Unusable,
    /// Another type, with its number. The kernel must not use it.
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

/// A region of (pseudo-)physical memory.
///
/// Addresses and lengths are in bytes. [`check`] and the start-info readers accept a region only if
/// `len` is not zero and `start + len` fits into 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First address of the region.
    pub start: u64,
    /// Length of the region.
    pub len: u64,
    /// Purpose of the region.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// Returns the first address past the region.
    ///
    /// Returns `u64::MAX` if `start + len` does not fit into 64 bits.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// Checks a whole memory map.
///
/// Regions must not be empty, must end within 64 bits, and must not overlap RAM. Regions of other
/// kinds may overlap each other. The regions may be in any order.
///
/// [`PvhStartInfo::read`](super::PvhStartInfo::read) has checked its memory map. Call this function
/// for a map from `XENMEM_memory_map`, at any time.
///
/// ```
/// use pvh_boot::start_info::{MemoryKind, MemoryRegion, memory_map};
///
/// let low = MemoryRegion { start: 0, len: 0xa_0000, kind: MemoryKind::Ram };
/// let hole = MemoryRegion { start: 0xa_0000, len: 0x6_0000, kind: MemoryKind::Reserved };
/// assert!(memory_map::check(&[low, hole]).is_ok());
/// assert!(memory_map::check(&[low, low]).is_err());
/// ```
///
/// # Errors
///
/// Returns the first region that breaks a rule:
///
/// - [`Problem::Zero`] for an empty region;
/// - [`Problem::Overflow`] for a region that does not end within 64 bits;
/// - [`Problem::Overlaps`] for a region that overlaps an earlier one, if one of the two is RAM.
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
    fn kinds_have_the_numbers_of_the_header() {
        let kinds: [MemoryKind; 8] = core::array::from_fn(|kind| (kind as u32).into());
        assert_eq!(kinds, [Other(0), Ram, Reserved, Acpi, Nvs, Unusable, Other(6), Other(7)]);
        assert_eq!(MemoryKind::from(!0), Other(!0));
    }

    #[test]
    fn neighbours_and_overlaps_without_ram_are_accepted() {
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
    fn empty_and_overflowing_regions_are_refused_by_name() {
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
                assert_eq!((error.field(), error.index()), ("memmap.addr", Some(1)));
                assert_eq!(error.problem(), Problem::Overlaps { other: 0 });
            }
        }
    }
}
