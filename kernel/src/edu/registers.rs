//! The device's registers, which are mapped while a driver uses them.

use crate::drivers::{MappedRegisters, NotMapped};
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

/// The number of bytes of registers that the driver uses. The last one is the command register.
pub const REGISTER_BYTES: u64 = Register64::Command as u64 + 8;

/// The mapped registers. Dropping this unmaps them.
pub struct EduRegisters {
    mapped: MappedRegisters,
}

impl EduRegisters {
    /// Maps the registers.
    ///
    /// # Safety
    /// `bar` is the memory of an `edu` device's registers, of [`REGISTER_BYTES`] bytes or more, and the device
    /// decodes it.
    ///
    /// # Errors
    /// Another driver uses the device or the window slots, or Xen refused the mapping.
    pub unsafe fn map(bar: MemoryBar) -> Result<Self, NotMapped> {
        // QEMU's device has 1 MiB of memory, which is more than all window slots.
        let registers = MemoryBar { bytes: REGISTER_BYTES, ..bar };
        // SAFETY: by this function's contract these are the first bytes of the registers.
        let mapped = unsafe { MappedRegisters::map(registers) }.map_err(|why| match why {
            NotMapped::Refused(why) => NotMapped::Refused(BarNotPermitted { bar, ..why }),
            why => why,
        })?;
        Ok(Self { mapped })
    }

    /// Returns the address of a register. Its offset is less than [`REGISTER_BYTES`].
    fn at<T>(&self, offset: u16) -> *mut T {
        (self.mapped.first() + u64::from(offset)).as_mut_ptr()
    }

    /// Reads a register of 32 bits.
    pub fn read(&self, register: Register32) -> u32 {
        // SAFETY: the registers are mapped while `self` lives, and they are aligned to their
        // size. They are not Rust objects, so the access is volatile.
        unsafe { self.at::<u32>(register as u16).read_volatile() }
    }

    /// Writes the liveness register. This changes only what the register returns later.
    pub fn write_liveness(&self, value: u32) {
        // SAFETY: the registers are mapped while `self` lives, and they are aligned to their size.
        unsafe { self.at::<u32>(Register32::Liveness as u16).write_volatile(value) };
    }

    /// Reads a register of 64 bits.
    pub fn read64(&self, register: Register64) -> u64 {
        // SAFETY: the registers are mapped while `self` lives, and they are aligned to their size.
        unsafe { self.at::<u64>(register as u16).read_volatile() }
    }

    /// Writes a register of 64 bits.
    ///
    /// # Safety
    /// A write to the command register starts the engine. Then no other code uses the memory that
    /// the engine writes ([M1](xen_contig::rules#M1)), and no Rust reference to it exists
    /// ([M5](xen_contig::rules#M5)).
    pub unsafe fn write64(&self, register: Register64, value: u64) {
        // SAFETY: the registers are mapped while `self` lives, and they are aligned to their
        // size. By this function's contract the engine writes only memory that no other code uses.
        unsafe { self.at::<u64>(register as u16).write_volatile(value) };
    }
}
