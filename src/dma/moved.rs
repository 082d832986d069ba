//! Checks that memory still has the address that the device received
//! ([C75](crate::conformance#C75)).

use core::fmt;

use crate::addr::{DmaAddr, PAGE_SIZE, PseudoPhysAddr};
use crate::p2m::P2m;

const PAGE: u64 = PAGE_SIZE as u64;

/// Memory that other machine frames back than before ([C75](crate::conformance#C75)): the domain was
/// saved and restored, or migrated. Allocate other memory for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The offset of the first byte that no longer has the address that the device received.
    pub offset: u64,
    /// The address that the device received.
    pub device_address: DmaAddr,
    /// The address that the byte has now; `None` if no machine frame backs it.
    pub found: Option<DmaAddr>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, device_address, found } = self;
        write!(f, "the byte at offset {offset} was at {device_address} for the device and is ")?;
        match found {
            Some(found) => write!(f, "at {found}: allocate anew"),
            None => f.write_str("nowhere: allocate anew"),
        }
    }
}

/// A stretch that is contiguous for the device, and the address that the device received for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceRange {
    /// Its first byte, for the guest.
    pub at: PseudoPhysAddr,
    /// Its first byte, for the device.
    pub dma: DmaAddr,
    /// The number of bytes.
    pub len: u64,
}

impl DeviceRange {
    /// Returns the address that the device received for the byte at `offset`; `None` past the end.
    pub fn dma_addr_at(&self, offset: u64) -> Option<DmaAddr> {
        (offset < self.len).then(|| self.dma.checked_add(offset))?
    }

    /// Checks every page, with one read of the P2M each.
    pub fn check_in_place(&self, p2m: &P2m<'_>) -> Result<(), Moved> {
        let mut offset = 0;
        // Neither address can run out before the stretch does: both belong to memory.
        while let (Some(device_address), Some(at)) =
            (self.dma_addr_at(offset), self.at.checked_add(offset))
        {
            let within = at.offset() as u64;
            let found = p2m.gfn(at.frame()).and_then(|gfn| DmaAddr::of(gfn).checked_add(within));
            if found != Some(device_address) {
                return Err(Moved { offset, device_address, found });
            }
            offset += PAGE - within;
        }
        Ok(())
    }
}
