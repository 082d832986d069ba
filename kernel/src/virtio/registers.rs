//! The device's registers, which are mapped at window slots while a driver uses them.

use core::fmt;
use core::ptr::NonNull;

use hypercall::XenErrno;
use spin::Mutex;
use xen_contig::addr::{Gfn, PAGE_SIZE};

use crate::guest::guest;
use crate::layout::{REGISTERS, slot, window};
use crate::pci::MemoryBar;

const PAGE: u64 = PAGE_SIZE as u64;

/// The memory that the window slots map. It belongs to one device at a time.
static SHOWN: Mutex<Option<MemoryBar>> = Mutex::new(None);

/// The mapped registers. Dropping this unmaps them.
pub struct VirtioRegisters {
    pages: u64,
}

/// The reason why the registers were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioNotMapped {
    /// Another driver uses the window slots.
    SlotsInUse,
    /// The registers need more slots than exist.
    TooLarge {
        /// The number of bytes of registers.
        bytes: u64,
    },
    /// Xen does not let the domain map the registers.
    Refused(XenErrno),
}

impl fmt::Display for VirtioNotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotsInUse => f.write_str("another driver uses the window slots"),
            Self::TooLarge { bytes } => {
                write!(f, "{bytes} bytes do not fit into {} window slots", slot::VIRTIO_PAGES)
            }
            Self::Refused(errno) => write!(f, "Xen refused the mapping: {errno}"),
        }
    }
}

impl core::error::Error for VirtioNotMapped {}

impl VirtioRegisters {
    /// Maps the memory of a device.
    ///
    /// # Safety
    /// `bar` is the memory that contains a virtio device's registers, and the device decodes it.
    ///
    /// # Errors
    /// Another driver uses the slots, they are too few, or Xen refused the mapping.
    pub unsafe fn map(bar: MemoryBar) -> Result<Self, VirtioNotMapped> {
        let mut shown = SHOWN.lock();
        if shown.is_some() {
            return Err(VirtioNotMapped::SlotsInUse);
        }
        let pages = bar.bytes.div_ceil(PAGE);
        if pages > slot::VIRTIO_PAGES {
            return Err(VirtioNotMapped::TooLarge { bytes: bar.bytes });
        }
        // If Xen refuses a page, `unmap` removes the mappings made so far.
        let mut registers = Self { pages: 0 };
        for page in 0..pages {
            let frame = Gfn::new(bar.start / PAGE + page);
            let mapped = guest().set_window(slot::VIRTIO + page, Some((frame, REGISTERS)));
            if let Err(errno) = mapped {
                registers.unmap();
                core::mem::forget(registers);
                return Err(VirtioNotMapped::Refused(errno));
            }
            registers.pages = page + 1;
        }
        *shown = Some(bar);
        Ok(registers)
    }

    fn unmap(&self) {
        for page in 0..self.pages {
            // Xen never refuses this. If it did, the next driver would overwrite the mapping.
            let _unmapped = guest().set_window(slot::VIRTIO + page, None);
        }
    }
}

impl Drop for VirtioRegisters {
    fn drop(&mut self) {
        self.unmap();
        *SHOWN.lock() = None;
    }
}

/// Returns the address at which a block of registers is mapped.
///
/// # Panics
/// If the block lies outside the mapped memory. The driver's crate has no error for that.
pub fn at(address: u64, bytes: usize) -> NonNull<u8> {
    let shown = *SHOWN.lock();
    let offset = shown.and_then(|bar| {
        let offset = address.checked_sub(bar.start)?;
        (offset.checked_add(bytes as u64)? <= bar.bytes).then_some(offset)
    });
    let Some(offset) = offset else {
        panic!("{bytes} bytes at {address:#x} are not within the registers {shown:x?}")
    };
    NonNull::new((window(slot::VIRTIO) + offset).as_mut_ptr()).expect("the window is not at 0")
}
