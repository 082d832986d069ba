//! One function of a device: its memory, and its right to do DMA.

use alloc::vec::Vec;
use core::fmt;

use pci_types::{Bar, CommandRegister, EndpointHeader, PciAddress, PciHeader};

use super::config::ConfigSpace;
use super::memory_bar::MemoryBar;

/// A function that a driver uses.
pub struct Function {
    space: ConfigSpace,
    address: PciAddress,
}

impl Function {
    /// Takes the function at `address`. Returns `None` if it is a bridge.
    pub fn take(space: ConfigSpace, address: PciAddress) -> Option<Self> {
        EndpointHeader::from_header(PciHeader::new(address), &space)?;
        Some(Self { space, address })
    }

    /// Returns the memory at a base address register, or `None` if the register is unused or has no
    /// address.
    ///
    /// The function stops decoding its memory until [`enable_memory`](Self::enable_memory).
    pub fn memory(&self, slot: u8) -> Option<MemoryBar> {
        self.bar(slot).map(|(bar, _)| bar)
    }

    /// Returns the memory at all base address registers.
    ///
    /// The function stops decoding its memory until [`enable_memory`](Self::enable_memory).
    pub fn memories(&self) -> Vec<MemoryBar> {
        let (mut found, mut slot) = (Vec::new(), 0);
        while slot < 6 {
            let bar = self.bar(slot);
            slot += bar.map_or(1, |(_, registers)| registers);
            found.extend(bar.map(|(bar, _)| bar));
        }
        found
    }

    /// Returns the memory at a base address register, and how many registers name it.
    fn bar(&self, slot: u8) -> Option<(MemoryBar, u8)> {
        // A write of ones makes the register return the size. Decoding is disabled meanwhile,
        // because the memory would move. Xen's vPCI refuses the write otherwise.
        self.command(|command| command - CommandRegister::MEMORY_ENABLE);
        let endpoint = EndpointHeader::from_header(PciHeader::new(self.address), &self.space)?;
        let (start, bytes, registers) = match endpoint.bar(slot, &self.space)? {
            Bar::Memory32 { address, size, .. } => (address.into(), size.into(), 1),
            Bar::Memory64 { address, size, .. } => (address, size, 2),
            Bar::Io { .. } => return None,
        };
        (start != 0).then_some((MemoryBar { start, bytes }, registers))
    }

    /// Makes the function decode its memory. It does no DMA until [`start_dma`](Self::start_dma).
    pub fn enable_memory(&self) {
        self.command(|command| {
            (command | CommandRegister::MEMORY_ENABLE) - CommandRegister::BUS_MASTER_ENABLE
        });
    }

    /// Lets the function do DMA, until it is dropped.
    pub fn start_dma(&self) {
        self.command(|command| command | CommandRegister::BUS_MASTER_ENABLE);
    }

    /// Returns the place of the function on the bus.
    pub const fn address(&self) -> PciAddress {
        self.address
    }

    /// Disables the function's interrupts of the pins (INTx). Drivers that poll call this.
    pub fn disable_interrupts(&self) {
        self.command(|command| command | CommandRegister::INTERRUPT_DISABLE);
    }

    fn command(&self, change: impl FnOnce(CommandRegister) -> CommandRegister) {
        PciHeader::new(self.address).update_command(&self.space, change);
    }
}

impl Drop for Function {
    /// Disables DMA, because no driver uses the function any more.
    fn drop(&mut self) {
        self.command(|command| command - CommandRegister::BUS_MASTER_ENABLE);
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
