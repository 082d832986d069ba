//! The size of a disk's blocks, which the disk chooses. The host tests compile this file too.

use core::fmt;
use core::ops::RangeInclusive;

use xen_contig::addr::PAGE_SIZE;

/// The sizes that the driver supports, in bytes.
///
/// The smallest is that of the NVM Command Set specification (LBADS). The largest is a page, as in Linux 6.1
/// (`nvme_update_disk_info`).
pub const SUPPORTED: RangeInclusive<usize> = 512..=PAGE_SIZE;

/// A size of blocks that the driver does not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedBlockSize {
    /// The size in bytes.
    pub bytes: usize,
}

impl fmt::Display for UnsupportedBlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (SUPPORTED.start(), SUPPORTED.end());
        write!(
            f,
            "the first namespace has blocks of {} bytes, but the driver supports powers of two from \
             {min} to {max}; format it with such blocks (nvme format --block-size=4096), which erases it",
            self.bytes
        )
    }
}

impl core::error::Error for UnsupportedBlockSize {}

/// Returns the size of a disk's blocks if the driver supports it.
///
/// # Errors
/// The size is not a power of two, or it is less than a sector or more than a page.
pub fn check(bytes: usize) -> Result<usize, UnsupportedBlockSize> {
    let is_supported = SUPPORTED.contains(&bytes) && bytes.is_power_of_two();
    if is_supported { Ok(bytes) } else { Err(UnsupportedBlockSize { bytes }) }
}
