//! One function of a device: its memory, and whether it may use the bus.

use core::fmt;

use pci_types::{Bar, CommandRegister, EndpointHeader, PciAddress, PciHeader};

use super::ports::Ports;

/// A function that a driver has taken.
pub struct Function {
    ports: Ports,
    address: PciAddress,
}

/// The memory of a function, as addresses on the bus.
///
/// They are machine addresses in a PV guest, and guest addresses in a PVH guest; Xen makes the two
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// The first byte.
    pub start: u64,
    /// The size in bytes.
    pub bytes: u64,
}

impl Function {
    /// Takes the function at `address`; `None` if it is a bridge.
    pub fn take(ports: Ports, address: PciAddress) -> Option<Self> {
        EndpointHeader::from_header(PciHeader::new(address), &ports)?;
        Some(Self { ports, address })
    }

    /// The memory at a base address register; `None` if there is none, or it has no address.
    ///
    /// This takes the function's memory off the bus, until [`enable`](Self::enable).
    pub fn memory(&self, slot: u8) -> Option<MemoryBar> {
        // Writing ones to the register shows the size. The memory would move if the function still
        // decoded it, and Xen's vPCI refuses such a write.
        self.command(|command| command - CommandRegister::MEMORY_ENABLE);
        let endpoint = EndpointHeader::from_header(PciHeader::new(self.address), &self.ports)?;
        let (start, bytes) = match endpoint.bar(slot, &self.ports)? {
            Bar::Memory32 { address, size, .. } => (address.into(), size.into()),
            Bar::Memory64 { address, size, .. } => (address, size),
            Bar::Io { .. } => return None,
        };
        (start != 0).then_some(MemoryBar { start, bytes })
    }

    /// Puts the function's memory on the bus and lets it do DMA.
    pub fn enable(&self) {
        self.command(|command| {
            command | CommandRegister::MEMORY_ENABLE | CommandRegister::BUS_MASTER_ENABLE
        });
    }

    fn command(&self, change: impl FnOnce(CommandRegister) -> CommandRegister) {
        PciHeader::new(self.address).update_command(&self.ports, change);
    }
}

impl Drop for Function {
    /// A function without a driver does no DMA.
    fn drop(&mut self) {
        self.command(|command| command - CommandRegister::BUS_MASTER_ENABLE);
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
