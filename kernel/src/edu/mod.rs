//! A driver for QEMU's `edu` device (`docs/specs/edu.rst` in QEMU's tree).
//!
//! The device has a DMA engine that copies between the machine's memory and 4 KiB of its own. The
//! engine drives 28 address bits and ignores the others. Therefore it cannot reach most memory of a
//! machine with 4 GiB, and a wrong address leads to wrong bytes.
//!
//! | question | place |
//! |---|---|
//! | how is the device found? | `device` |
//! | where are its registers mapped? | `registers` |
//! | how does it move data? | `transfer` |

mod device;
mod registers;
mod transfer;

pub use device::Edu;
pub use transfer::{ENGINE_BYTES, MASK, TransferError, reachable};
