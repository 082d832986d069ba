//! The registers of devices, which are mapped at window slots while drivers use them.

use core::fmt;
use core::ptr::NonNull;

use arrayvec::ArrayVec;
use mmio_api::{MapError, MmioAddr, MmioOp, MmioRaw};
use spin::Mutex;
use x86_64::VirtAddr;
use xen_contig::addr::PAGE_SIZE;

use crate::guest::guest;
use crate::layout::{slot, window};
use crate::pci::{BarNotPermitted, MemoryBar};

const PAGE: u64 = PAGE_SIZE as u64;

/// The number of devices that can be in use at a time.
const DEVICES: usize = 4;

/// The registers that are mapped now.
static MAPPINGS: Mutex<ArrayVec<RegisterMapping, DEVICES>> = Mutex::new(ArrayVec::new_const());

/// The registers of a device, and where they are mapped.
#[derive(Clone, Copy, Debug)]
struct RegisterMapping {
    bar: MemoryBar,
    /// The first of its window slots.
    slot: u64,
}

impl RegisterMapping {
    fn first_page(&self) -> u64 {
        self.bar.start / PAGE
    }

    fn pages(&self) -> u64 {
        (self.bar.start % PAGE + self.bar.bytes).div_ceil(PAGE)
    }

    /// Returns where a register is mapped. Its address lies within the memory, which may begin inside a page.
    fn mapped(&self, address: u64) -> VirtAddr {
        window(self.slot) + (address - self.first_page() * PAGE)
    }

    fn map(&self) -> Result<(), BarNotPermitted> {
        for page in 0..self.pages() {
            if let Err(error) = self.bar.map_page(page, self.slot + page) {
                self.unmap(page);
                return Err(error);
            }
        }
        Ok(())
    }

    fn unmap(&self, pages: u64) {
        for page in 0..pages {
            // Xen never refuses this. If it did, the next driver would overwrite the mapping.
            let _unmapped = guest().set_window(self.slot + page, None);
        }
    }
}

/// The mapped registers of a device. Dropping this unmaps them.
#[derive(Debug)]
pub struct MappedRegisters(RegisterMapping);

/// The reason why registers were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// Another driver uses the device.
    InUse,
    /// Other drivers use the window slots, or the registers need more slots than exist.
    NoSlots {
        /// The number of bytes of registers.
        bytes: u64,
    },
    /// Xen does not let the domain map the registers.
    Refused(BarNotPermitted),
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("another driver uses the device"),
            Self::NoSlots { bytes } => write!(
                f,
                "{bytes} bytes do not fit into the free window slots ({} in all)",
                slot::DEVICE_PAGES
            ),
            Self::Refused(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for NotMapped {}

impl MappedRegisters {
    /// Maps the memory of a device.
    ///
    /// # Safety
    /// `bar` is the memory that contains a device's registers, and the device decodes it.
    ///
    /// # Errors
    /// Another driver uses the device, the slots are too few, or Xen refused the mapping.
    pub unsafe fn map(bar: MemoryBar) -> Result<Self, NotMapped> {
        let mut mappings = MAPPINGS.lock();
        if mappings.iter().any(|other| other.bar.start == bar.start) {
            return Err(NotMapped::InUse);
        }
        let no_slots = NotMapped::NoSlots { bytes: bar.bytes };
        let one = RegisterMapping { bar, slot: free_slots(&mappings, bar).ok_or(no_slots)? };
        if mappings.is_full() {
            return Err(no_slots);
        }
        one.map().map_err(NotMapped::Refused)?;
        mappings.push(one);
        Ok(Self(one))
    }

    /// Returns the memory that is mapped.
    pub const fn bar(&self) -> MemoryBar {
        self.0.bar
    }

    /// Returns the address at which the first register is mapped.
    pub fn first(&self) -> VirtAddr {
        self.0.mapped(self.0.bar.start)
    }
}

impl Drop for MappedRegisters {
    fn drop(&mut self) {
        let mut mappings = MAPPINGS.lock();
        if let Some(index) = mappings.iter().position(|one| one.bar == self.bar()) {
            let one = mappings.swap_remove(index);
            one.unmap(one.pages());
        }
    }
}

/// Returns the first slot of a free run that is long enough.
fn free_slots(mappings: &[RegisterMapping], bar: MemoryBar) -> Option<u64> {
    let end = slot::DEVICES + slot::DEVICE_PAGES;
    let after = mappings.iter().map(|one| one.slot + one.pages());
    core::iter::once(slot::DEVICES).chain(after).find(|slot| {
        let wanted = RegisterMapping { bar, slot: *slot };
        let overlaps = |one: &RegisterMapping| {
            *slot < one.slot + one.pages() && one.slot < slot + wanted.pages()
        };
        slot + wanted.pages() <= end && !mappings.iter().any(overlaps)
    })
}

/// Returns the address at which a block of registers is mapped, or `None` if no driver has mapped it.
pub fn at(address: u64, bytes: usize) -> Option<NonNull<u8>> {
    let mappings = MAPPINGS.lock();
    let one = mappings.iter().find(|one| one.bar.contains(address, bytes as u64))?;
    NonNull::new(one.mapped(address).as_mut_ptr())
}

/// Returns mapped registers to drivers on the crate `mmio-api`.
#[derive(Debug)]
pub struct RegisterMap;

impl MmioOp for RegisterMap {
    fn ioremap(&self, addr: MmioAddr, size: usize) -> Result<MmioRaw, MapError> {
        let pointer = at(addr.as_usize() as u64, size).ok_or(MapError::Invalid)?;
        // SAFETY: `at` found these bytes within registers that are mapped. The driver's `DeviceFunction` keeps
        // them mapped.
        Ok(unsafe { MmioRaw::new(addr, pointer, size) })
    }

    fn iounmap(&self, _: &MmioRaw) {
        // `MappedRegisters` unmaps them.
    }
}
