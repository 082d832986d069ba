//! Finding the device and preparing it for use.

use core::fmt;

use pci_types::{DeviceId, VendorId};

use super::registers::{EduRegisters, REGISTER_BYTES, Register32};
use crate::drivers::NotMapped;
use crate::machine::Machine;
use crate::pci::{self, ConfigSpace, ConfigSpaceError, Function, FunctionError, MemoryBar};

/// The device's vendor and device numbers.
const ID: (VendorId, DeviceId) = (0x1234, 0x11e8);

/// The contents of the first register: version 1.0, `edu`.
const IDENTIFICATION: u32 = 0x0100_00ed;

/// The device, in use by this driver.
pub struct Edu {
    // The fields are dropped in this order: the registers are unmapped before the function loses
    // its right to do DMA. The engine is idle then, because a transfer borrows the device until it
    // ends.
    pub(super) registers: EduRegisters,
    function: Function,
    bar: MemoryBar,
}

/// The reason why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EduError {
    /// Configuration space is not available.
    Config(ConfigSpaceError),
    /// The device is not on the bus.
    Absent,
    /// The function cannot be used.
    Function(FunctionError),
    /// The registers were not mapped.
    NotMapped(NotMapped),
    /// The identification register has the contents of another device.
    UnexpectedDevice {
        /// The contents of the identification register.
        identification: u32,
    },
}

impl EduError {
    /// Returns true if the machine or the domain does not have such a device.
    pub const fn is_expected(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Config(why) => why.is_expected(),
            _ => false,
        }
    }
}

impl fmt::Display for EduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::Absent => f.write_str("no edu device on the PCI bus (QEMU: -device edu)"),
            Self::Function(why) => write!(f, "the edu device: {why}"),
            Self::NotMapped(why) => write!(f, "the edu device's registers: {why}"),
            Self::UnexpectedDevice { identification } => write!(
                f,
                "the device with edu's PCI numbers identifies itself as {identification:#010x}, not \
                 {IDENTIFICATION:#010x}"
            ),
        }
    }
}

impl core::error::Error for EduError {}

impl Edu {
    /// Finds the device on the bus and prepares it for use.
    ///
    /// # Errors
    /// The domain has no such device, or the device cannot be used.
    pub fn open(machine: &Machine) -> Result<Self, EduError> {
        let space = ConfigSpace::open(machine).map_err(EduError::Config)?;
        let address = pci::find(&space, ID).ok_or(EduError::Absent)?;
        let function = Function::take(space, address).map_err(EduError::Function)?;
        let bar = function.registers(0, REGISTER_BYTES).map_err(EduError::Function)?;
        function.enable_memory();
        // SAFETY: the function has the numbers of an edu device. Its first memory contains its
        // registers, and `enable_memory` made the function decode it.
        let registers = unsafe { EduRegisters::map(bar) }.map_err(EduError::NotMapped)?;
        match registers.read(Register32::Identification) {
            IDENTIFICATION => {
                function.start_dma();
                Ok(Self { registers, function, bar })
            }
            identification => Err(EduError::UnexpectedDevice { identification }),
        }
    }

    /// Writes a number and returns the device's answer, which is the complement if the device
    /// works.
    pub fn liveness(&self, value: u32) -> u32 {
        self.registers.write_liveness(value);
        self.registers.read(Register32::Liveness)
    }
}

impl fmt::Display for Edu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryBar { start, bytes } = self.bar;
        write!(f, "{}, registers at {start:#x} ({} KiB)", self.function, bytes >> 10)
    }
}
