//! Finding the device and taking it.

use core::fmt;

use pci_types::{DeviceId, VendorId};
use xen_contig::addr::{Gfn, PAGE_SIZE};

use super::registers::{EduNotMapped, EduRegisters, Narrow};
use crate::machine::Machine;
use crate::pci::{self, Function, MemoryBar, NoConfigSpace, Ports};

/// The device's vendor and device numbers.
const ID: (VendorId, DeviceId) = (0x1234, 0x11e8);

/// The contents of its first register: version 1.0, `edu`.
const IDENTIFICATION: u32 = 0x0100_00ed;

/// The device, taken by this driver.
pub struct Edu {
    // Dropped in this order: the registers are unmapped before the function loses its right to do
    // DMA. The engine is idle by then, because a transfer borrows the device until it is done.
    pub(super) registers: EduRegisters,
    function: Function,
    bar: MemoryBar,
}

/// Why there is no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEdu {
    /// Configuration space is not available.
    Config(NoConfigSpace),
    /// The device is not on the bus.
    Absent,
    /// Firmware gave the device's registers no address.
    NoMemory,
    /// The registers were not mapped.
    NotMapped(EduNotMapped),
    /// Another device answers.
    Stranger {
        /// The contents of its first register.
        identification: u32,
    },
}

impl NoEdu {
    /// Returns true if the machine or the domain simply has no such device.
    pub const fn is_expected(&self) -> bool {
        matches!(self, Self::Absent | Self::Config(NoConfigSpace::NotInitialDomain))
    }
}

impl fmt::Display for NoEdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::Absent => f.write_str("no edu device on the PCI bus (QEMU: -device edu)"),
            Self::NoMemory => f.write_str("the edu device's registers have no address"),
            Self::NotMapped(why) => write!(f, "the edu device's registers: {why}"),
            Self::Stranger { identification } => write!(
                f,
                "where the edu device should be, something identifies itself as \
                 {identification:#010x}, not {IDENTIFICATION:#010x}"
            ),
        }
    }
}

impl core::error::Error for NoEdu {}

impl Edu {
    /// Finds the device on the bus and takes it.
    ///
    /// # Errors
    /// There is no device that this driver can use.
    pub fn open(machine: &Machine) -> Result<Self, NoEdu> {
        let ports = Ports::open(machine).map_err(NoEdu::Config)?;
        let address = pci::find(&ports, ID).ok_or(NoEdu::Absent)?;
        let function = Function::take(ports, address).ok_or(NoEdu::Absent)?;
        let bar = function.memory(0).ok_or(NoEdu::NoMemory)?;
        function.enable();
        // SAFETY: the function is an edu device by its numbers. Its first memory holds its registers,
        // and `enable` made it decode them.
        let registers = unsafe { EduRegisters::map(Gfn::new(bar.start / PAGE_SIZE as u64)) }
            .map_err(NoEdu::NotMapped)?;
        match registers.read(Narrow::Identification) {
            IDENTIFICATION => Ok(Self { registers, function, bar }),
            identification => Err(NoEdu::Stranger { identification }),
        }
    }

    /// The device's answer to a number: the complement, if the device works.
    pub fn liveness(&self, value: u32) -> u32 {
        self.registers.write_liveness(value);
        self.registers.read(Narrow::Liveness)
    }
}

impl fmt::Display for Edu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryBar { start, bytes } = self.bar;
        write!(f, "{}, registers at {start:#x} ({} KiB)", self.function, bytes >> 10)
    }
}
