//! `public/io/console.h`: the page that a guest shares with its console backend.

use super::assert_layout;

/// Bytes of the ring towards the guest.
pub const INPUT_RING_SIZE: usize = 1024;
/// Bytes of the ring towards the backend.
pub const OUTPUT_RING_SIZE: usize = 2048;

/// `struct xencons_interface`. Lives in memory that the backend reads and writes at any time:
/// never make a reference to one, go through raw pointers with volatile or atomic accesses.
#[repr(C)]
pub struct ConsoleRing {
    /// Bytes for the guest.
    pub input: [u8; INPUT_RING_SIZE],
    /// Bytes from the guest.
    pub output: [u8; OUTPUT_RING_SIZE],
    /// Where the guest reads next.
    pub in_cons: u32,
    /// Where the backend writes next.
    pub in_prod: u32,
    /// Where the backend reads next.
    pub out_cons: u32,
    /// Where the guest writes next.
    pub out_prod: u32,
}
assert_layout!(ConsoleRing, size 3088,
    input @ 0, output @ 1024, in_cons @ 3072, in_prod @ 3076, out_cons @ 3080, out_prod @ 3084);
