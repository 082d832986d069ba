//! `public/io/console.h`: the page that a guest shares with its console backend.

use super::assert_layout;

/// The size in bytes of the ring towards the guest.
pub const INPUT_RING_SIZE: usize = 1024;
/// The size in bytes of the ring towards the backend.
pub const OUTPUT_RING_SIZE: usize = 2048;

/// `struct xencons_interface`.
///
/// The backend reads and writes this memory at any time. Access it only through raw pointers, by
/// volatile or atomic operations; never make a reference to it.
#[repr(C)]
pub struct ConsoleRing {
    /// The ring of bytes for the guest.
    pub input: [u8; INPUT_RING_SIZE],
    /// The ring of bytes from the guest.
    pub output: [u8; OUTPUT_RING_SIZE],
    /// The index at which the guest reads next.
    pub in_cons: u32,
    /// The index at which the backend writes next.
    pub in_prod: u32,
    /// The index at which the backend reads next.
    pub out_cons: u32,
    /// The index at which the guest writes next.
    pub out_prod: u32,
}
assert_layout!(ConsoleRing, size 3088,
    input @ 0, output @ 1024, in_cons @ 3072, in_prod @ 3076, out_cons @ 3080, out_prod @ 3084);
