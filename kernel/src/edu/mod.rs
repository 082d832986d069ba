//! A driver for QEMU's `edu` device (`docs/specs/edu.rst` there): a DMA engine between the machine's
//! memory and 4 KiB of the device's own.
//!
//! It is here because its engine drives 28 address bits and silently drops the rest. So most memory
//! of a machine with 4 GiB is out of its reach, and an address that is wrong shows as wrong bytes.

mod device;
mod registers;
mod transfer;

pub use device::Edu;
pub use transfer::{ENGINE_BYTES, MASK, TransferError, reachable};
