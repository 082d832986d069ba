//! Finding the device and preparing it for use.

use core::fmt;

use pci_types::{DeviceId, PciAddress, VendorId};
use spin::Mutex;
use virtio_drivers::Hal;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, PCI_CAP_ID_VNDR, PciRoot};
use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_VENDOR_ID,
    VirtioPciError,
};

use super::access::{ConfigAccess, function};
use super::transport::{BusTransport, Queue};
use crate::drivers::{MappedRegisters, NotMapped};
use crate::machine::Machine;
use crate::pci::capability::{self, EndlessCapabilities};
use crate::pci::{self, ConfigSpace, ConfigSpaceError, Function, FunctionError, MemoryBar};

/// The vendor and device numbers of block devices (virtio 1.1, 4.1.2).
///
/// The first has only the modern interface; the second has the legacy interface too.
const IDS: [(VendorId, DeviceId); 2] = [(VIRTIO_VENDOR_ID, 0x1042), (VIRTIO_VENDOR_ID, 0x1001)];

/// The offsets in a virtio capability (virtio 1.1, 4.1.4): the base address register, and the place in its memory.
const CAPABILITY_BAR: u8 = 4;
const CAPABILITY_OFFSET: u8 = 8;
const CAPABILITY_LENGTH: u8 = 12;

/// The device, in use by this driver.
pub struct VirtioDevice {
    // The fields are dropped in this order: the registers are unmapped before the function loses
    // its right to do DMA. A transport borrows the device, so the transport resets it before.
    _registers: MappedRegisters,
    function: Function,
    bar: MemoryBar,
    queue: Mutex<Option<Queue>>,
}

/// The reason why the device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VirtioDeviceError {
    /// Configuration space is not available.
    Config(ConfigSpaceError),
    /// The device is not on the bus.
    Absent,
    /// The device has only the legacy interface.
    Legacy,
    /// The device has registers at two base address registers, with these numbers.
    TwoBars(u8, u8),
    /// The function cannot be used.
    Function(FunctionError),
    /// The capabilities cannot be read.
    Capabilities(EndlessCapabilities),
    /// The registers were not mapped.
    NotMapped(NotMapped),
    /// The crate `virtio-drivers` rejects the device.
    Transport(VirtioPciError),
}

impl VirtioDeviceError {
    /// Returns true if the machine or the domain does not have such a device.
    pub const fn is_expected(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Config(why) => why.is_expected(),
            _ => false,
        }
    }
}

impl fmt::Display for VirtioDeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) => why.fmt(f),
            Self::Absent => {
                f.write_str("no virtio block device on the PCI bus (QEMU: -device virtio-blk-pci)")
            }
            Self::Legacy => f.write_str(
                "the virtio block device has only the legacy interface (QEMU: disable-modern=off)",
            ),
            Self::TwoBars(one, other) => write!(
                f,
                "the virtio block device has registers at BAR {one} and at BAR {other}, but the driver \
                 supports one BAR, as QEMU's devices have"
            ),
            Self::Function(why) => write!(f, "the virtio block device: {why}"),
            Self::Capabilities(why) => write!(f, "the virtio block device: {why}"),
            Self::NotMapped(why) => write!(f, "the virtio block device's registers: {why}"),
            Self::Transport(why) => write!(f, "the virtio block device: {why}"),
        }
    }
}

impl core::error::Error for VirtioDeviceError {}

impl VirtioDevice {
    /// Finds the device on the bus and prepares it for use.
    ///
    /// # Errors
    /// The domain has no such device, or the device cannot be used.
    pub fn open(machine: &Machine) -> Result<Self, VirtioDeviceError> {
        let space = ConfigSpace::open(machine).map_err(VirtioDeviceError::Config)?;
        let found = IDS.iter().find_map(|id| pci::find(&space, *id));
        let address = found.ok_or(VirtioDeviceError::Absent)?;
        let function = Function::take(space, address).map_err(VirtioDeviceError::Function)?;
        let (slot, used) = registers_of(function.space(), address)?;
        let bar = function.registers(slot, used).map_err(VirtioDeviceError::Function)?;
        function.enable_memory();
        // The driver polls the queue.
        function.disable_interrupts();
        // SAFETY: the function has the numbers of a virtio device. Its capability says that this
        // memory contains its registers, and `enable_memory` made the function decode it.
        let registers =
            unsafe { MappedRegisters::map(bar) }.map_err(VirtioDeviceError::NotMapped)?;
        function.start_dma();
        let queue = Mutex::new(None);
        Ok(Self { _registers: registers, function, bar, queue })
    }

    /// Returns the transport for a driver, which finds the registers by `H`.
    ///
    /// # Errors
    /// The crate `virtio-drivers` rejects the device.
    pub fn transport<H: Hal>(&self) -> Result<BusTransport<'_>, VirtioDeviceError> {
        let address = self.function.address();
        let mut root = PciRoot::new(ConfigAccess::around(self.function.space(), address));
        let pci = PciTransport::new::<H, _>(&mut root, function(address));
        pci.map(|pci| BusTransport::new(pci, &self.queue)).map_err(VirtioDeviceError::Transport)
    }

    /// Returns the queue that a driver last set up.
    pub fn queue(&self) -> Option<Queue> {
        *self.queue.lock()
    }
}

/// Returns the number of the base address register of the modern interface, and the number of bytes of registers.
fn registers_of(space: &ConfigSpace, address: PciAddress) -> Result<(u8, u64), VirtioDeviceError> {
    let access = ConfigAccess::around(space, address);
    let read = |offset| access.read_word(function(address), offset);
    let mut found: Option<(u8, u64)> = None;
    // The crate reads the same list without a limit, so this comes first.
    let all = capability::read(space, address).map_err(VirtioDeviceError::Capabilities)?;
    for capability in all {
        let kind = (capability.header >> 24) as u8;
        let is_registers = (VIRTIO_PCI_CAP_COMMON_CFG..=VIRTIO_PCI_CAP_DEVICE_CFG).contains(&kind);
        if capability.id() != PCI_CAP_ID_VNDR || !is_registers {
            continue;
        }
        // The header has 256 bytes, and a capability begins at a multiple of 4 below its end.
        let at = |field| read(capability.offset.saturating_add(field));
        let slot = at(CAPABILITY_BAR) as u8;
        let end = u64::from(at(CAPABILITY_OFFSET)) + u64::from(at(CAPABILITY_LENGTH));
        found = match found {
            Some((other, _)) if other != slot => {
                return Err(VirtioDeviceError::TwoBars(other, slot));
            }
            Some((_, longest)) => Some((slot, longest.max(end))),
            None => Some((slot, end)),
        };
    }
    found.ok_or(VirtioDeviceError::Legacy)
}

impl fmt::Display for VirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryBar { start, bytes } = self.bar;
        write!(f, "{}, registers at {start:#x} ({} KiB)", self.function, bytes >> 10)
    }
}
