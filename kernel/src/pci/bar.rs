//! A base address register: reading it, and the memory that it names. The host tests compile this file too.
//!
//! The facts are of the PCI Local Bus Specification 3.0, section 6.2.5.1. The crate `pci_types` reads these
//! registers too, but it panics on a memory type that is reserved and on a size that does not exist.

use core::fmt;

use pci_types::{ConfigRegionAccess, PciAddress};

/// The number of base address registers of a function.
pub const SLOTS: u8 = 6;

/// The offset of the first register in configuration space.
const FIRST: u16 = 0x10;

/// The bit of a register that names ports.
const PORTS: u32 = 1;
/// The bits of a register that are not part of an address.
const FLAGS: u32 = 0b1111;
/// The bits with the width of an address.
const WIDTH: u32 = 0b110;
const WIDTH_32: u32 = 0b000;
const WIDTH_64: u32 = 0b100;

/// The memory of a function, as addresses on the bus.
///
/// They are machine addresses in a PV guest and guest addresses in a PVH guest. Xen makes the two
/// the same for a PVH dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// The first address.
    pub start: u64,
    /// The size in bytes.
    pub bytes: u64,
}

impl MemoryBar {
    /// Returns true if all `bytes` bytes from `address` on lie within the memory.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        let offset = address.checked_sub(self.start);
        let end = offset.and_then(|offset| offset.checked_add(bytes));
        end.is_some_and(|end| end <= self.bytes)
    }
}

/// A base address register that no driver can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarError {
    /// The function.
    pub address: PciAddress,
    /// The number of the register.
    pub slot: u8,
    /// The contents of the register, and of the next one if it is 64 bits wide.
    pub value: u64,
    /// Its fault.
    pub fault: BarFault,
}

/// A fault of a base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarFault {
    /// The memory type is reserved.
    ReservedType,
    /// It is the first half of a register, and the last one that exists.
    NoSecondHalf,
    /// It does not report a size. The value is what it reported.
    NoSize(u64),
    /// The memory would end above the last address. The value is its size in bytes.
    BeyondEnd(u64),
}

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, slot, value, fault } = self;
        write!(f, "BAR {slot} of {address} has the value {value:#x}, ")?;
        match fault {
            BarFault::ReservedType => f.write_str("whose memory type is reserved")?,
            BarFault::NoSecondHalf => f.write_str("is 64 bits wide and has no second half")?,
            BarFault::NoSize(reported) => write!(f, "but reports the size mask {reported:#x}")?,
            BarFault::BeyondEnd(bytes) => {
                write!(f, "but its {bytes:#x} bytes would end above the last address")?
            }
        }
        f.write_str(
            "; compare it with lspci -xxx in Linux. If it is the same there, the device is broken: do \
             not use it",
        )
    }
}

impl core::error::Error for BarError {}

/// Reads a base address register. Returns the memory, and the number of registers that name it.
///
/// Returns `None` if the register does not exist, is unused, names ports or has no address. The function must
/// not decode its memory meanwhile, because the memory would move.
///
/// # Errors
/// The value of the register is invalid.
pub fn read(
    space: &impl ConfigRegionAccess,
    address: PciAddress,
    slot: u8,
) -> Result<Option<(MemoryBar, u8)>, BarError> {
    if slot >= SLOTS {
        return Ok(None);
    }
    let register = Register { space, address, offset: FIRST + 4 * u16::from(slot) };
    let low = register.get();
    let error = |value, fault| BarError { address, slot, value, fault };
    if low & PORTS != 0 {
        return Ok(None);
    }
    let (value, mask, registers) = match low & WIDTH {
        WIDTH_32 => {
            let mask = register.size_mask(low);
            // The address has zeros above, and so the mask has ones.
            let high = if mask & !FLAGS == 0 { 0 } else { u32::MAX };
            (low.into(), join(high, mask), 1)
        }
        WIDTH_64 if slot + 1 == SLOTS => return Err(error(low.into(), BarFault::NoSecondHalf)),
        WIDTH_64 => {
            let second = Register { offset: register.offset + 4, ..register };
            let high = second.get();
            let mask = join(second.size_mask(high), register.size_mask(low));
            (join(high, low), mask, 2)
        }
        _ => return Err(error(low.into(), BarFault::ReservedType)),
    };
    let start = value & !u64::from(FLAGS);
    let sizes = mask & !u64::from(FLAGS);
    if start == 0 {
        return Ok(None);
    }
    if sizes == 0 {
        return Err(error(value, BarFault::NoSize(mask)));
    }
    // The lowest bit that the address can have is the size.
    let bytes = 1 << sizes.trailing_zeros();
    match start.checked_add(bytes) {
        Some(_) => Ok(Some((MemoryBar { start, bytes }, registers))),
        None => Err(error(value, BarFault::BeyondEnd(bytes))),
    }
}

/// Returns the value of two registers.
fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A register of 32 bits.
struct Register<'s, S> {
    space: &'s S,
    address: PciAddress,
    offset: u16,
}

impl<S: ConfigRegionAccess> Register<'_, S> {
    fn get(&self) -> u32 {
        // SAFETY: reading a base address register has no side effect.
        unsafe { self.space.read(self.address, self.offset) }
    }

    /// Returns which bits of the register can be set. `value` is its contents.
    fn size_mask(&self, value: u32) -> u32 {
        // SAFETY: a base address register accepts every value. The function does not decode its memory, and
        // the contents are restored.
        unsafe { self.space.write(self.address, self.offset, u32::MAX) };
        let mask = self.get();
        // SAFETY: these are the contents that the register had before.
        unsafe { self.space.write(self.address, self.offset, value) };
        mask
    }
}
