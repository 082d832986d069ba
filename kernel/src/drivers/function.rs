//! A function of a device, with its registers mapped.

use core::fmt;

use pci_types::{DeviceId, PciAddress, PciHeader, VendorId};

use super::registers::{MappedRegisters, NotMapped};
use crate::machine::Machine;
use crate::pci::{
    self, ConfigSpace, ConfigSpaceError, Function, FunctionError, Interrupt, InterruptError,
    MemoryBar,
};

/// A kind of device that a driver supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// The name in messages.
    pub name: &'static str,
    /// The option of QEMU that adds such a device.
    pub qemu: &'static str,
    /// The mark by which a driver recognises such a device.
    pub mark: DeviceMark,
    /// The number of the base address register for the device's registers.
    pub registers: u8,
    /// The number of bytes of registers that every device of this kind has, and the driver uses.
    pub register_bytes: u64,
}

/// The mark by which a driver recognises its devices in configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMark {
    /// One of these pairs of vendor and device numbers.
    Ids(&'static [(VendorId, DeviceId)]),
    /// The class, the subclass and the programming interface.
    Class(u8, u8, u8),
}

impl DeviceMark {
    /// Returns true if the function at `address` is such a device. `id` is its vendor and device number.
    fn is_of(self, space: &ConfigSpace, address: PciAddress, id: (VendorId, DeviceId)) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&id),
            Self::Class(class, subclass, interface) => {
                let (_, base, sub, programming) = PciHeader::new(address).revision_and_class(space);
                (base, sub, programming) == (class, subclass, interface)
            }
        }
    }
}

/// A function in use by a driver. Its registers are mapped.
///
/// It does no DMA until [`start_dma`](Self::start_dma), and asserts no interrupt until
/// [`bind_interrupt`](Self::bind_interrupt).
pub struct DeviceFunction {
    // The fields are dropped in this order: the registers are unmapped before the function loses its
    // right to do DMA.
    registers: MappedRegisters,
    function: Function,
}

/// The reason why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// Configuration space is not available.
    Config(ConfigSpaceError),
    /// The device is not on the bus.
    Absent(DeviceKind),
    /// The function cannot be used.
    Function(DeviceKind, FunctionError),
    /// The registers were not mapped.
    NotMapped(DeviceKind, NotMapped),
}

impl DeviceError {
    /// Returns true if the machine or the domain does not have such a device.
    pub const fn is_expected(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::Config(why) => why.is_expected(),
            _ => false,
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::Absent(DeviceKind { name, qemu, .. }) => {
                write!(f, "no {name} on the PCI bus (QEMU: {qemu})")
            }
            Self::Function(DeviceKind { name, .. }, why) => write!(f, "the {name}: {why}"),
            Self::NotMapped(DeviceKind { name, .. }, why) => {
                write!(f, "the registers of the {name}: {why}")
            }
        }
    }
}

impl core::error::Error for DeviceError {}

impl DeviceFunction {
    /// Finds a device of this kind and prepares it for use.
    ///
    /// # Errors
    /// The domain has no such device, or the device cannot be used.
    pub fn find(machine: &Machine, kind: DeviceKind) -> Result<Self, DeviceError> {
        let space = ConfigSpace::open(machine).map_err(DeviceError::Config)?;
        let mut functions = pci::functions(&space).into_iter();
        let found = functions.find(|(address, id)| kind.mark.is_of(&space, *address, *id));
        let (address, _) = found.ok_or(DeviceError::Absent(kind))?;
        Self::open(space, address, kind)
    }

    /// Prepares the function at `address`, which is a device of this kind, for use.
    fn open(
        space: ConfigSpace,
        address: PciAddress,
        kind: DeviceKind,
    ) -> Result<Self, DeviceError> {
        let unusable = |why| DeviceError::Function(kind, why);
        let function = Function::take(space, address).map_err(unusable)?;
        let bar = function.registers(kind.registers, kind.register_bytes).map_err(unusable)?;
        function.enable_memory();
        function.disable_interrupts();
        // SAFETY: the function is marked as a device with its registers in this memory, and
        // `enable_memory` made the function decode it.
        let registers = unsafe { MappedRegisters::map(bar) }
            .map_err(|why| DeviceError::NotMapped(kind, why))?;
        Ok(Self { registers, function })
    }

    /// Lets the device do DMA, until it is dropped.
    ///
    /// A driver whose start can fail calls this when it would stop the device before it frees memory.
    pub fn start_dma(&self) {
        self.function.start_dma();
    }

    /// Returns the place of the device on the bus.
    pub const fn address(&self) -> PciAddress {
        self.function.address()
    }

    /// Binds the interrupt of the function's pin. Returns `None` in dom0, where it reaches no driver.
    ///
    /// # Errors
    /// The function has no interrupt, or Xen refused a step.
    pub fn bind_interrupt(&self) -> Result<Option<Interrupt>, InterruptError> {
        Interrupt::bind(self.function.space(), self.address())
    }

    /// Returns the memory with the registers.
    pub const fn bar(&self) -> MemoryBar {
        self.registers.bar()
    }
}

impl fmt::Display for DeviceFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryBar { start, bytes } = self.bar();
        write!(f, "{}, registers at {start:#x} ({} KiB)", self.function, bytes >> 10)
    }
}
