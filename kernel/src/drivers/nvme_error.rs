//! The reason why an NVMe disk does not work.

use core::fmt;

use rdif_block::BlkError;

use super::block_size::UnsupportedBlockSize;

/// The reason why the disk does not work.
#[derive(Debug)]
pub enum NvmeError {
    /// The doorbells of the controller do not lie within its memory.
    ShortMemory {
        /// The number of the base address register.
        slot: u8,
        /// The size of the memory in bytes.
        bytes: u64,
        /// The number of bytes with the doorbells that the driver uses.
        used: u64,
    },
    /// The crate rejects the controller.
    Rejected(nvme_driver::err::Error),
    /// A step of the crate failed.
    Step(&'static str, BlkError),
    /// The crate rejects the first namespace.
    Namespace,
    /// The blocks of the disk have a size that the driver does not support.
    BlockSize(UnsupportedBlockSize),
    /// The controller made no progress.
    Stuck {
        /// The step that it did not finish.
        step: &'static str,
        /// The limit in seconds.
        seconds: u64,
    },
    /// The crate announced that the controller is ready, but supplied no queue.
    NoQueue,
    /// The disk was given up after an earlier failure.
    GivenUp,
}

impl fmt::Display for NvmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortMemory { slot, bytes, used } => write!(
                f,
                "NVMe: BAR {slot} has {bytes} bytes, but the controller says that its doorbells end at {used}: the \
                 controller is broken, or not an NVMe controller"
            ),
            Self::Rejected(why) => write!(f, "the crate rejects the NVMe controller: {why}"),
            Self::Step(step, why) => write!(f, "NVMe: {step}: {why}"),
            Self::Namespace => f.write_str(
                "NVMe: the crate rejects the first namespace: it is empty, has metadata, or has blocks of \
                 4 GiB or more; format it with blocks of 4096 bytes and without metadata (nvme format \
                 --block-size=4096 --ms=0), which erases it",
            ),
            Self::BlockSize(why) => write!(f, "NVMe: {why}"),
            Self::Stuck { step, seconds } => {
                write!(f, "NVMe: {step}: the controller did not finish in {seconds} s")
            }
            Self::NoQueue => f.write_str("NVMe: the crate supplied no queue"),
            Self::GivenUp => f.write_str("NVMe: the disk was given up after an earlier failure"),
        }
    }
}

impl core::error::Error for NvmeError {}
