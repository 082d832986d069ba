//! The device's registers, mapped at a window slot while a driver uses them.

use core::fmt;

use hypercall::XenErrno;
use spin::{Mutex, MutexGuard};
use xen_contig::addr::Gfn;

use crate::kind::Kind;
use crate::layout::{slot, window};
use crate::paging::{REGISTERS, set_window};

/// Registers of 32 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum Narrow {
    /// What the device is.
    Identification = 0x00,
    /// Reads as the complement of what was written.
    Liveness = 0x04,
}

/// Registers of 64 bits.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
pub enum Wide {
    /// Where the engine reads.
    Source = 0x80,
    /// Where it writes.
    Destination = 0x88,
    /// How many bytes.
    Count = 0x90,
    /// Starts the engine, and shows whether it runs.
    Command = 0x98,
}

/// The slot is one driver's at a time.
static SLOT: Mutex<()> = Mutex::new(());

/// The registers. Dropping this unmaps them.
pub struct Registers {
    kind: Kind,
    _slot: MutexGuard<'static, ()>,
}

/// Why the registers can't be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// Another driver has the window slot.
    SlotInUse,
    /// Xen does not let the domain map them.
    Refused(XenErrno),
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotInUse => f.write_str("another driver uses the window slot"),
            Self::Refused(errno) => write!(f, "Xen does not let them be mapped: {errno}"),
        }
    }
}

impl core::error::Error for NotMapped {}

impl Registers {
    /// Maps the page of registers.
    ///
    /// # Safety
    /// `page` is the first page of the memory of an `edu` device, which decodes it.
    ///
    /// # Errors
    /// Why not.
    pub unsafe fn map(kind: Kind, page: Gfn) -> Result<Self, NotMapped> {
        let slot = SLOT.try_lock().ok_or(NotMapped::SlotInUse)?;
        set_window(kind, slot::DEVICE, Some((page, REGISTERS))).map_err(NotMapped::Refused)?;
        Ok(Self { kind, _slot: slot })
    }

    fn at<T>(offset: u16) -> *mut T {
        (window(slot::DEVICE) + u64::from(offset)).as_mut_ptr()
    }

    /// Reads a register of 32 bits.
    pub fn read(&self, register: Narrow) -> u32 {
        // SAFETY: the slot shows the registers as long as `self` lives, and they are aligned to
        // their size. Not Rust's memory, so volatile alone ([M5](xen_contig::rules#M5)).
        unsafe { Self::at::<u32>(register as u16).read_volatile() }
    }

    /// Writes the liveness register, which has no other effect than on what it reads as.
    pub fn write_liveness(&self, value: u32) {
        // SAFETY: as for `read`.
        unsafe { Self::at::<u32>(Narrow::Liveness as u16).write_volatile(value) };
    }

    /// Reads a register of 64 bits.
    pub fn read_wide(&self, register: Wide) -> u64 {
        // SAFETY: as for `read`.
        unsafe { Self::at::<u64>(register as u16).read_volatile() }
    }

    /// Writes a register of 64 bits.
    ///
    /// # Safety
    /// A write to the command register starts the engine: what the other registers tell it to write
    /// to is memory that is the caller's to be written by a device ([M1](xen_contig::rules#M1),
    /// [M5](xen_contig::rules#M5)).
    pub unsafe fn write_wide(&self, register: Wide, value: u64) {
        // SAFETY: as for `read`; what the device does is the caller's.
        unsafe { Self::at::<u64>(register as u16).write_volatile(value) };
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // Taking a page out of the window is refused to nobody; if it were, the slot would go on
        // showing registers, and the next driver's page replaces them.
        let _unmapped = set_window(self.kind, slot::DEVICE, None);
    }
}
