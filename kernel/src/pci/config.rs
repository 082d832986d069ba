//! Configuration space, accessed by the means that the domain has.

use core::fmt;

use hypercall::XenErrno;
use pci_types::{ConfigRegionAccess, PciAddress};

use super::ports::Ports;
use crate::machine::Machine;

/// Configuration space, accessed by the means that the domain has.
///
/// A clone accesses the same devices. A value stays on the vCPU that opened it.
#[derive(Clone, Debug)]
pub enum ConfigSpace {
    /// The ports of a dom0.
    Ports(Ports),
}

/// The reason why configuration space is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSpaceError {
    /// This is a domU. The machine's devices belong to dom0.
    NotInitialDomain,
    /// Xen does not let this kernel use ports.
    Refused(XenErrno),
}

impl fmt::Display for ConfigSpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialDomain => {
                f.write_str("not dom0, and only dom0 has the machine's devices")
            }
            Self::Refused(errno) => write!(f, "Xen refused port I/O: {errno}"),
        }
    }
}

impl core::error::Error for ConfigSpaceError {}

impl ConfigSpace {
    /// Opens the configuration space of the devices that the domain has.
    ///
    /// # Errors
    /// The domain has no devices, or Xen refused the access.
    pub fn open(machine: &Machine) -> Result<Self, ConfigSpaceError> {
        if !machine.initial_domain {
            return Err(ConfigSpaceError::NotInitialDomain);
        }
        Ports::open().map(Self::Ports).map_err(ConfigSpaceError::Refused)
    }
}

impl ConfigRegionAccess for ConfigSpace {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        match self {
            // SAFETY: both functions have the same contract.
            Self::Ports(ports) => unsafe { ports.read(address, offset) },
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        match self {
            // SAFETY: both functions have the same contract.
            Self::Ports(ports) => unsafe { ports.write(address, offset, value) },
        }
    }
}
