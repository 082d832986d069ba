//! The DMA engine: memory to device, device to memory.

use core::fmt;
use core::hint;

use xen_contig::addr::DmaAddr;

use super::Edu;
use super::registers::Wide;

/// The addresses that the engine can drive. It drops the bits above, silently.
pub const MASK: u64 = (1 << 28) - 1;

/// Bytes of the device's own memory that are used: one less than it has. QEMU 7.2 takes a transfer
/// of the last one for one out of bounds, and ends itself with a hardware error.
pub const ENGINE_BYTES: u64 = 4095;

/// Where the engine sees the device's own memory.
const ENGINE_BASE: u64 = 0x40000;

/// Bits of the command register.
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;

/// Looks at the command register before the engine is given up. The engine takes 100 ms of QEMU's
/// clock; a look takes 0.1 to 10 µs, so this is 1.6 s at least.
const PATIENCE: u32 = 1 << 24;

/// Why no data moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// Not within the device's own memory. Nothing was started.
    Engine {
        /// The first byte of it.
        offset: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The engine can't drive the addresses. Nothing was started.
    AboveMask {
        /// The first byte.
        start: DmaAddr,
        /// How many bytes.
        bytes: u64,
    },
    /// The engine does not come to an end. It may still write: the memory is lost.
    Stuck {
        /// How often it was looked at.
        looks: u32,
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine { offset, bytes } => write!(
                f,
                "{bytes} bytes from {offset} on are not within the device's {ENGINE_BYTES}"
            ),
            Self::AboveMask { start, bytes } => {
                write!(f, "{bytes} bytes from {start} on are not within the mask {MASK:#x}")
            }
            Self::Stuck { looks } => write!(f, "the engine still runs after {looks} looks"),
        }
    }
}

impl core::error::Error for TransferError {}

impl Edu {
    /// Copies memory to the device's own, from `offset` on there.
    ///
    /// Addresses above the mask are not refused, unlike for [`store`](Self::store): what the device
    /// then reads is other memory, which does no harm and can be told from what it holds.
    ///
    /// # Safety
    /// `start`, and `start` within the mask, name RAM.
    ///
    /// # Errors
    /// Why not.
    pub unsafe fn fetch(
        &mut self,
        start: DmaAddr,
        offset: u64,
        bytes: u64,
    ) -> Result<(), TransferError> {
        let engine = engine(offset, bytes)?;
        // SAFETY: the engine writes to the device's own memory alone.
        unsafe { self.run(start.get(), engine, bytes, RUN) }
    }

    /// Copies the device's own memory from `offset` on to memory.
    ///
    /// # Safety
    /// The memory is the caller's ([M1](xen_contig::rules#M1)), no reference to it exists
    /// ([M5](xen_contig::rules#M5)), and it stays the caller's for good if the engine is
    /// [`Stuck`](TransferError::Stuck).
    ///
    /// # Errors
    /// Why not.
    pub unsafe fn store(
        &mut self,
        offset: u64,
        start: DmaAddr,
        bytes: u64,
    ) -> Result<(), TransferError> {
        let engine = engine(offset, bytes)?;
        reachable(start, bytes)?;
        // SAFETY: the engine writes to this memory alone, all of which it can drive; the rest is
        // the caller's word.
        unsafe { self.run(engine, start.get(), bytes, RUN | TO_MEMORY) }
    }

    /// Runs the engine and waits for its end.
    ///
    /// # Safety
    /// What it writes to is memory of the device's own, or as [`store`](Self::store) says.
    unsafe fn run(
        &mut self,
        source: u64,
        destination: u64,
        bytes: u64,
        command: u64,
    ) -> Result<(), TransferError> {
        let registers = &self.registers;
        // SAFETY: the engine is idle, or an earlier transfer is stuck and it takes no write. The
        // command comes last; x86 lets no earlier store to memory pass it, so that the engine sees
        // what the caller wrote.
        unsafe {
            registers.write_wide(Wide::Source, source);
            registers.write_wide(Wide::Destination, destination);
            registers.write_wide(Wide::Count, bytes);
            registers.write_wide(Wide::Command, command);
        }
        for _ in 0..PATIENCE {
            if registers.read_wide(Wide::Command) & RUN == 0 {
                return Ok(());
            }
            hint::spin_loop();
        }
        Err(TransferError::Stuck { looks: PATIENCE })
    }
}

/// Whether the engine can drive the addresses of so many bytes from `start` on.
///
/// # Errors
/// [`AboveMask`](TransferError::AboveMask) if not.
pub fn reachable(start: DmaAddr, bytes: u64) -> Result<(), TransferError> {
    match start.checked_add(bytes) {
        Some(end) if end.get() <= MASK + 1 => Ok(()),
        _ => Err(TransferError::AboveMask { start, bytes }),
    }
}

/// Where the engine sees a part of the device's own memory.
fn engine(offset: u64, bytes: u64) -> Result<u64, TransferError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= ENGINE_BYTES && bytes > 0 => Ok(ENGINE_BASE + offset),
        _ => Err(TransferError::Engine { offset, bytes }),
    }
}
