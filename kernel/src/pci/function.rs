//! One function of a device: its memory, and whether it may use the bus.

use core::fmt;

use pci_types::{Bar, CommandRegister, EndpointHeader, PciAddress, PciHeader};

use super::Ports;

/// A function that a driver has taken.
pub struct Function {
    ports: Ports,
    address: PciAddress,
}

/// Memory of a function's, as addresses on the bus: in PV machine addresses, in PVH guest ones,
/// which Xen makes the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// The first byte.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Function {
    /// Takes the function at `address`; `None` where it is a bridge.
    pub fn take(ports: Ports, address: PciAddress) -> Option<Self> {
        EndpointHeader::from_header(PciHeader::new(address), &ports)?;
        Some(Self { ports, address })
    }

    /// The memory at a base address register; `None` where there is none that has been given a
    /// place. The function's memory is off the bus afterwards, until [`enable`](Self::enable).
    pub fn memory(&self, slot: u8) -> Option<MemoryBar> {
        // The size shows when ones are written to the register. While the function decodes it, its
        // memory would move, and Xen's vPCI takes no such write.
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
