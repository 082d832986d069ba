//! The doorbells of an NVMe controller, whose distance the controller chooses. The host tests compile this file
//! too.

/// The offset of the first doorbell (NVM Express base specification 2.0, 3.1.3.1).
const FIRST: u64 = 0x1000;

/// The number of doorbells of the admin queues and of one pair of I/O queues.
const COUNT: u64 = 4;

/// Returns the end of the last doorbell that the driver uses. `capabilities` is the register CAP.
pub const fn end(capabilities: u64) -> u64 {
    let stride = 4 << (capabilities >> 32 & 0xf);
    FIRST + (COUNT - 1) * stride + 4
}
