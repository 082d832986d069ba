//! The device's registers, which are mapped at a window slot while a driver uses them.

use core::fmt;

use spin::{Mutex, MutexGuard};

use crate::guest::guest;
use crate::layout::{slot, window};
use crate::pci::{BarNotPermitted, MemoryBar};

/// Registers of 32 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum Register32 {
    /// Identifies the device.
    Identification = 0x00,
    /// Returns the complement of the last value written.
    Liveness = 0x04,
}

/// Registers of 64 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum Register64 {
    /// The address that the engine reads.
    Source = 0x80,
    /// The address that the engine writes.
    Destination = 0x88,
    /// The number of bytes to copy.
    Count = 0x90,
    /// Starts the engine, and tells whether it runs.
    Command = 0x98,
}

/// The lock of the window slot, which one driver at a time uses.
static SLOT: Mutex<()> = Mutex::new(());

/// The mapped registers. Dropping this unmaps them.
pub struct EduRegisters {
    _slot: MutexGuard<'static, ()>,
}

/// The reason why the registers were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EduNotMapped {
    /// Another driver uses the window slot.
    SlotInUse,
    /// Xen does not let the domain map the registers.
    Refused(BarNotPermitted),
}

impl fmt::Display for EduNotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotInUse => f.write_str("another driver uses the window slot"),
            Self::Refused(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for EduNotMapped {}

impl EduRegisters {
    /// Maps the page of registers.
    ///
    /// # Safety
    /// `bar` is the memory of an `edu` device's registers, and the device decodes it.
    ///
    /// # Errors
    /// Another driver uses the slot, or Xen refused the mapping.
    pub unsafe fn map(bar: MemoryBar) -> Result<Self, EduNotMapped> {
        let slot = SLOT.try_lock().ok_or(EduNotMapped::SlotInUse)?;
        bar.map_page(0, slot::DEVICE).map_err(EduNotMapped::Refused)?;
        Ok(Self { _slot: slot })
    }

    fn at<T>(offset: u16) -> *mut T {
        (window(slot::DEVICE) + u64::from(offset)).as_mut_ptr()
    }

    /// Reads a register of 32 bits.
    pub fn read(&self, register: Register32) -> u32 {
        // SAFETY: the slot maps the registers while `self` lives, and they are aligned to their
        // size. They are not Rust objects, so the access is volatile.
        unsafe { Self::at::<u32>(register as u16).read_volatile() }
    }

    /// Writes the liveness register. This changes only what the register returns later.
    pub fn write_liveness(&self, value: u32) {
        // SAFETY: the slot maps the registers while `self` lives, and they are aligned to their size.
        unsafe { Self::at::<u32>(Register32::Liveness as u16).write_volatile(value) };
    }

    /// Reads a register of 64 bits.
    pub fn read64(&self, register: Register64) -> u64 {
        // SAFETY: the slot maps the registers while `self` lives, and they are aligned to their size.
        unsafe { Self::at::<u64>(register as u16).read_volatile() }
    }

    /// Writes a register of 64 bits.
    ///
    /// # Safety
    /// A write to the command register starts the engine. Then no other code uses the memory that
    /// the engine writes ([M1](xen_contig::rules#M1)), and no Rust reference to it exists
    /// ([M5](xen_contig::rules#M5)).
    pub unsafe fn write64(&self, register: Register64, value: u64) {
        // SAFETY: the slot maps the registers while `self` lives, and they are aligned to their
        // size. By this function's contract the engine writes only memory that no other code uses.
        unsafe { Self::at::<u64>(register as u16).write_volatile(value) };
    }
}

impl Drop for EduRegisters {
    fn drop(&mut self) {
        // Xen never refuses this. If it did, the next driver would overwrite the mapping.
        let _unmapped = guest().set_window(slot::DEVICE, None);
    }
}
