//! Configuration space, accessed by the means that the domain has.

use alloc::vec::Vec;
use core::fmt;

use hypercall::XenErrno;
use pci_types::{ConfigRegionAccess, PciAddress};

use super::frontend::{Frontend, FrontendError, RootBus};
use super::ports::Ports;
use crate::machine::Machine;

/// Configuration space, accessed by the means that the domain has.
///
/// A clone accesses the same devices. A value stays on the vCPU that opened it.
#[derive(Clone, Debug)]
pub enum ConfigSpace {
    /// The ports of a dom0.
    Ports(Ports),
    /// The backend that serves a PV domU.
    Frontend(Frontend),
}

/// The reason why configuration space is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSpaceError {
    /// This is a domU, to which the toolstack passed no device.
    NoDevices,
    /// Xen does not let this kernel use ports.
    Refused(XenErrno),
    /// The backend that serves a domU cannot be used.
    Frontend(FrontendError),
}

impl fmt::Display for ConfigSpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevices => f.write_str(
                "no PCI device is passed to this domU; name one in pci=[…] of its configuration",
            ),
            Self::Refused(errno) => write!(f, "Xen refused port I/O: {errno}"),
            Self::Frontend(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConfigSpaceError {}

impl ConfigSpaceError {
    /// Returns true if the domain has no devices.
    pub const fn is_expected(&self) -> bool {
        matches!(self, Self::NoDevices)
    }
}

impl ConfigSpace {
    /// Opens the configuration space of the devices that the domain has. Sleeps in a domU.
    ///
    /// # Errors
    /// The domain has no devices, or Xen or the backend refused the access.
    pub fn open(machine: &Machine) -> Result<Self, ConfigSpaceError> {
        if machine.initial_domain {
            return Ports::open().map(Self::Ports).map_err(ConfigSpaceError::Refused);
        }
        let frontend = Frontend::open(machine).map_err(ConfigSpaceError::Frontend)?;
        frontend.map(Self::Frontend).ok_or(ConfigSpaceError::NoDevices)
    }

    /// Returns the buses from which the devices are found.
    pub fn roots(&self) -> Vec<RootBus> {
        match self {
            Self::Ports(_) => alloc::vec![RootBus { segment: 0, bus: 0 }],
            Self::Frontend(frontend) => frontend.roots(),
        }
    }
}

impl ConfigRegionAccess for ConfigSpace {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        match self {
            // SAFETY: both functions have the same contract.
            Self::Ports(ports) => unsafe { ports.read(address, offset) },
            // SAFETY: both functions have the same contract.
            Self::Frontend(frontend) => unsafe { frontend.read(address, offset) },
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        match self {
            // SAFETY: both functions have the same contract.
            Self::Ports(ports) => unsafe { ports.write(address, offset, value) },
            // SAFETY: both functions have the same contract.
            Self::Frontend(frontend) => unsafe { frontend.write(address, offset, value) },
        }
    }
}
