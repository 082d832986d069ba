//! The capability list of a function. The host tests compile this file too.
//!
//! The facts are of the PCI Local Bus Specification 3.0, section 6.7. The iterators of the crates `pci_types` and
//! `virtio-drivers` do not end if the list leads back to itself.

use core::fmt;

use arrayvec::ArrayVec;
use pci_types::{ConfigRegionAccess, PciAddress};

/// The offset of the register with the status, and the bit that says that there is a list.
const STATUS: u16 = 0x04;
const HAS_LIST: u32 = 1 << 20;

/// The offset of the register with the offset of the first capability.
const FIRST: u16 = 0x34;

/// The offsets that a capability can have: multiples of 4 after the header.
const AFTER_HEADER: u8 = 0x40;
const ALIGN: u8 = 4;

/// The number of capabilities that can exist.
const MAX: usize = (0x100 - AFTER_HEADER as usize) / ALIGN as usize;

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its offset in configuration space.
    pub offset: u8,
    /// Its first four bytes.
    pub header: u32,
}

impl Capability {
    /// Returns the kind of the capability.
    pub const fn id(self) -> u8 {
        self.header as u8
    }
}

/// A list that does not end. The value is the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndlessCapabilities(pub PciAddress);

impl fmt::Display for EndlessCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the capability list of {} does not end after {MAX} entries, the most that can exist; compare it \
             with lspci -vv in Linux. If that prints \"chain looped\", the device is broken: do not use it",
            self.0
        )
    }
}

impl core::error::Error for EndlessCapabilities {}

/// Returns the capabilities of a function in the order of its list.
///
/// # Errors
/// The list does not end.
pub fn read(
    space: &impl ConfigRegionAccess,
    address: PciAddress,
) -> Result<ArrayVec<Capability, MAX>, EndlessCapabilities> {
    // SAFETY: reading the status or a capability has no side effect.
    let word = |offset| unsafe { space.read(address, offset) };
    let mut found = ArrayVec::new();
    if word(STATUS) & HAS_LIST == 0 {
        return Ok(found);
    }
    // The lowest bits of the first offset are reserved.
    let mut offset = word(FIRST) as u8 & !(ALIGN - 1);
    while offset >= AFTER_HEADER && offset.is_multiple_of(ALIGN) {
        let capability = Capability { offset, header: word(offset.into()) };
        found.try_push(capability).map_err(|_| EndlessCapabilities(address))?;
        offset = (capability.header >> 8) as u8;
    }
    Ok(found)
}
