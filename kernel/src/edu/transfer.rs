//! The DMA engine, which copies from memory to the device and back.

use core::fmt;

use xen_contig::addr::DmaAddr;

use super::device::Edu;
use super::registers::Register64;
use crate::events::nap;
use crate::time::Deadline;

/// The addresses that the engine can drive. It ignores the bits above.
pub const MASK: u64 = (1 << 28) - 1;

/// The number of bytes of the device's own memory that the driver uses: one less than exist.
///
/// QEMU 7.2 considers a transfer of the last byte as out of bounds, and ends with a hardware error.
pub const ENGINE_BYTES: u64 = 4095;

/// The address of the device's own memory, as the engine uses it.
const ENGINE_BASE: u64 = 0x40000;

/// The bits of the command register.
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;

/// The number of seconds of system time after which the driver gives up.
///
/// The engine takes 100 ms of QEMU's clock. The limit is high because a busy host may not run QEMU's
/// timers for seconds. A number of reads is not a limit of time, because some naps between two reads end
/// at once.
const LIMIT_SECONDS: u64 = 60;

/// The reason why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// The range lies outside the device's own memory. The engine was not started.
    Engine {
        /// The first byte.
        offset: u64,
        /// The number of bytes.
        bytes: u64,
    },
    /// The engine cannot drive the addresses. The engine was not started.
    AboveMask {
        /// The first byte.
        start: DmaAddr,
        /// The number of bytes.
        bytes: u64,
    },
    /// The engine does not stop. The memory stays in use, because the engine may still write it.
    Stuck {
        /// The seconds that the driver waited.
        seconds: u64,
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
            Self::Stuck { seconds } => {
                write!(f, "the engine still runs after {seconds} s")
            }
        }
    }
}

impl core::error::Error for TransferError {}

impl Edu {
    /// Copies memory to the device's own memory, from `offset` on.
    ///
    /// Unlike [`store`](Self::store) this accepts addresses above the mask. The device then reads
    /// other memory, which does no harm and is visible in the bytes that it read.
    ///
    /// # Safety
    /// `start`, and `start` without the bits above the mask, are addresses of RAM.
    ///
    /// # Errors
    /// The range is invalid, or the engine does not stop.
    pub unsafe fn fetch(
        &mut self,
        start: DmaAddr,
        offset: u64,
        bytes: u64,
    ) -> Result<(), TransferError> {
        let engine = engine(offset, bytes)?;
        // SAFETY: the engine writes only the device's own memory.
        unsafe { self.run(start.get(), engine, bytes, RUN) }
    }

    /// Copies the device's own memory, from `offset` on, to memory.
    ///
    /// # Safety
    /// Nothing else uses the memory ([M1](xen_contig::rules#M1)), and no Rust reference to it
    /// exists ([M5](xen_contig::rules#M5)). If the engine is [`Stuck`](TransferError::Stuck), both
    /// remain true forever.
    ///
    /// # Errors
    /// A range is invalid, or the engine does not stop.
    pub unsafe fn store(
        &mut self,
        offset: u64,
        start: DmaAddr,
        bytes: u64,
    ) -> Result<(), TransferError> {
        let engine = engine(offset, bytes)?;
        reachable(start, bytes)?;
        // SAFETY: `reachable` checked that the engine can drive all addresses of the memory, so it
        // writes no other. By this function's contract nothing else uses the memory.
        unsafe { self.run(engine, start.get(), bytes, RUN | TO_MEMORY) }
    }

    /// Runs the engine and waits until it stops.
    ///
    /// # Safety
    /// `destination` is the device's own memory, or it is memory that nothing else uses until the
    /// engine has stopped.
    unsafe fn run(
        &mut self,
        source: u64,
        destination: u64,
        bytes: u64,
        command: u64,
    ) -> Result<(), TransferError> {
        let registers = &self.registers;
        // SAFETY: the engine is idle, or it is stuck in an earlier transfer and ignores writes. By
        // this function's contract nothing else uses the memory that the engine writes. The command
        // comes last. x86 keeps the order of stores, so the engine sees everything that was written
        // before.
        unsafe {
            registers.write64(Register64::Source, source);
            registers.write64(Register64::Destination, destination);
            registers.write64(Register64::Count, bytes);
            registers.write64(Register64::Command, command);
        }
        let deadline = Deadline::in_seconds(LIMIT_SECONDS);
        while registers.read64(Register64::Command) & RUN != 0 {
            if deadline.has_passed() {
                return Err(TransferError::Stuck { seconds: LIMIT_SECONDS });
            }
            // Each read exits to the emulator and costs more than the engine's work.
            nap();
        }
        Ok(())
    }
}

/// Checks that the engine can drive the addresses of `bytes` bytes from `start` on.
///
/// # Errors
/// [`AboveMask`](TransferError::AboveMask) if it cannot.
pub fn reachable(start: DmaAddr, bytes: u64) -> Result<(), TransferError> {
    match start.checked_add(bytes) {
        Some(end) if end.get() <= MASK + 1 => Ok(()),
        _ => Err(TransferError::AboveMask { start, bytes }),
    }
}

/// Returns the address of a part of the device's own memory, as the engine uses it.
fn engine(offset: u64, bytes: u64) -> Result<u64, TransferError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= ENGINE_BYTES && bytes > 0 => Ok(ENGINE_BASE + offset),
        _ => Err(TransferError::Engine { offset, bytes }),
    }
}
