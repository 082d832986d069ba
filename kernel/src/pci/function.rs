//! One function of a device: its memory, and its right to do DMA. The host tests compile this file too.

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use pci_types::{CommandRegister, EndpointHeader, PciAddress, PciHeader};
use spin::Mutex;

use super::bar::{self, BarError, MemoryBar};
use super::config::ConfigSpace;

/// The functions that drivers use now.
static IN_USE: Mutex<Vec<PciAddress>> = Mutex::new(Vec::new());

/// The claim to a function, which one driver at a time has. Dropping it ends the claim.
struct Claim(PciAddress);

impl Claim {
    /// Claims a function, if no driver uses it.
    fn new(address: PciAddress) -> Option<Self> {
        let mut in_use = IN_USE.lock();
        if in_use.contains(&address) {
            return None;
        }
        in_use.push(address);
        Some(Self(address))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        IN_USE.lock().retain(|address| *address != self.0);
    }
}

/// A function that a driver uses.
pub struct Function {
    space: ConfigSpace,
    claim: Claim,
    /// True if a driver let the function do DMA.
    does_dma: Cell<bool>,
}

/// The reason why a driver cannot use a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionError {
    /// It is not an endpoint but, for example, a bridge.
    NoEndpoint(PciAddress),
    /// Another driver uses it.
    InUse(PciAddress),
    /// The value of a base address register is invalid.
    Bar(BarError),
    /// A base address register has no address of memory.
    NoMemory {
        /// The function.
        address: PciAddress,
        /// The number of the register.
        slot: u8,
    },
    /// The memory is shorter than the registers that the driver uses.
    ShortMemory {
        /// The function.
        address: PciAddress,
        /// The number of the base address register.
        slot: u8,
        /// The size of the memory in bytes.
        bytes: u64,
        /// The number of bytes that the driver uses.
        used: u64,
    },
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint(address) => {
                write!(f, "{address} is a bridge or has an unknown kind of header")
            }
            Self::InUse(address) => {
                write!(f, "another driver uses {address}; drop that driver before this one starts")
            }
            Self::Bar(error) => error.fmt(f),
            Self::NoMemory { address, slot } => write!(
                f,
                "BAR {slot} of {address} has no address of memory: the firmware did not assign one, or \
                 the device is of another kind"
            ),
            Self::ShortMemory { address, slot, bytes, used } => write!(
                f,
                "BAR {slot} of {address} has {bytes} bytes, but the driver uses {used}: the device is of \
                 a kind that the driver does not support"
            ),
        }
    }
}

impl core::error::Error for FunctionError {}

impl Function {
    /// Takes the function at `address`. Nothing is written to it.
    ///
    /// # Errors
    /// Another driver uses the function, or it is a bridge.
    pub fn take(space: ConfigSpace, address: PciAddress) -> Result<Self, FunctionError> {
        let claim = Claim::new(address).ok_or(FunctionError::InUse(address))?;
        let endpoint = EndpointHeader::from_header(PciHeader::new(address), &space);
        endpoint.ok_or(FunctionError::NoEndpoint(address))?;
        Ok(Self { space, claim, does_dma: Cell::new(false) })
    }

    /// Returns the memory at a base address register, which contains the `used` bytes of registers of a driver.
    ///
    /// The function decodes its memory afterwards if it did before.
    ///
    /// # Errors
    /// The value of the register is invalid, it has no address, or the memory is too short.
    pub fn registers(&self, slot: u8, used: u64) -> Result<MemoryBar, FunctionError> {
        let address = self.address();
        let (bar, _) = self.bar(slot)?.ok_or(FunctionError::NoMemory { address, slot })?;
        match bar.bytes {
            bytes if bytes < used => Err(FunctionError::ShortMemory { address, slot, bytes, used }),
            _ => Ok(bar),
        }
    }

    /// Returns the memory at all base address registers.
    ///
    /// The function decodes its memory afterwards if it did before.
    ///
    /// # Errors
    /// The value of a register is invalid.
    pub fn memories(&self) -> Result<Vec<MemoryBar>, FunctionError> {
        let (mut found, mut slot) = (Vec::new(), 0);
        while slot < bar::SLOTS {
            let bar = self.bar(slot)?;
            slot += bar.map_or(1, |(_, registers)| registers);
            found.extend(bar.map(|(bar, _)| bar));
        }
        Ok(found)
    }

    /// Returns the memory at a base address register, and how many registers name it.
    fn bar(&self, slot: u8) -> Result<Option<(MemoryBar, u8)>, FunctionError> {
        let mut before = CommandRegister::empty();
        // Xen's vPCI refuses to write the register while the function decodes its memory.
        self.command(|command| {
            before = command;
            command - CommandRegister::MEMORY_ENABLE
        });
        let bar = bar::read(&self.space, self.address(), slot);
        self.command(|_| before);
        bar.map_err(FunctionError::Bar)
    }

    /// Makes the function decode its memory. It does no DMA until [`start_dma`](Self::start_dma).
    pub fn enable_memory(&self) {
        self.command(|command| {
            (command | CommandRegister::MEMORY_ENABLE) - CommandRegister::BUS_MASTER_ENABLE
        });
    }

    /// Lets the function do DMA, until it is dropped.
    pub fn start_dma(&self) {
        self.does_dma.set(true);
        self.command(|command| command | CommandRegister::BUS_MASTER_ENABLE);
    }

    /// Returns the configuration space with the function.
    pub const fn space(&self) -> &ConfigSpace {
        &self.space
    }

    /// Returns the place of the function on the bus.
    pub const fn address(&self) -> PciAddress {
        self.claim.0
    }

    /// Disables the function's interrupts of the pins (INTx), until one is bound.
    pub fn disable_interrupts(&self) {
        self.command(|command| command | CommandRegister::INTERRUPT_DISABLE);
    }

    fn command(&self, change: impl FnOnce(CommandRegister) -> CommandRegister) {
        PciHeader::new(self.address()).update_command(&self.space, change);
    }
}

impl Drop for Function {
    /// Disables DMA if a driver started it. A function that no driver started stays as it was.
    fn drop(&mut self) {
        if self.does_dma.get() {
            self.command(|command| command - CommandRegister::BUS_MASTER_ENABLE);
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}
