//! Finding the device and taking it.

use core::fmt;

use pci_types::{DeviceId, VendorId};
use xen_contig::addr::{Gfn, PAGE_SIZE};

use super::registers::{Narrow, NotMapped, Registers};
use crate::machine::Machine;
use crate::pci::{self, Function, MemoryBar, NoConfigSpace, Ports};

/// What the device calls itself on the bus.
const ID: (VendorId, DeviceId) = (0x1234, 0x11e8);

/// What it calls itself in its first register: version 1.0, `edu`.
const IDENTIFICATION: u32 = 0x0100_00ed;

/// The device, taken by this driver.
pub struct Edu {
    // Dropped in this order: first the registers go, then the function's right to do DMA. The
    // engine is idle then: a transfer borrows the device until it is done.
    pub(super) registers: Registers,
    function: Function,
    bar: MemoryBar,
}

/// Why there is no device to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEdu {
    /// There is no bus to look at.
    Config(NoConfigSpace),
    /// It is not on the bus.
    Absent,
    /// It is there, but firmware gave its registers no place.
    NoMemory,
    /// Its registers can't be reached.
    NotMapped(NotMapped),
    /// What answers is another device.
    Stranger {
        /// What it calls itself.
        identification: u32,
    },
}

impl NoEdu {
    /// Whether nothing is wrong: this is a machine, or a domain, without the device.
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
    /// Why not.
    pub fn open(machine: &Machine) -> Result<Self, NoEdu> {
        let ports = Ports::open(machine).map_err(NoEdu::Config)?;
        let address = pci::find(&ports, ID).ok_or(NoEdu::Absent)?;
        let function = Function::take(ports, address).ok_or(NoEdu::Absent)?;
        let bar = function.memory(0).ok_or(NoEdu::NoMemory)?;
        function.enable();
        // SAFETY: it calls itself an edu device, its first memory is its registers, and it has
        // just been told to decode them.
        let registers =
            unsafe { Registers::map(machine.kind, Gfn::new(bar.start / PAGE_SIZE as u64)) }
                .map_err(NoEdu::NotMapped)?;
        match registers.read(Narrow::Identification) {
            IDENTIFICATION => Ok(Self { registers, function, bar }),
            identification => Err(NoEdu::Stranger { identification }),
        }
    }

    /// What the device makes of a number: its complement, if it is alive.
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
