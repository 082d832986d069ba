//! The C interface of `xen-contig` as a static library, `libxen_contig.a`.
//!
//! A library in Rust needs a panic handler, which a kernel in Rust has already. So it is the one thing that this
//! package adds to `xen-contig-c`.
#![no_std]

use core::ffi::c_char;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

pub use xen_contig_c::{allocator, buffer, codes, device, error, mapping, platform, pool};

/// The most bytes of a message, with the zero at its end.
const MESSAGE: usize = 256;

unsafe extern "C" {
    /// The kernel's function: prints a message and does not return.
    fn xc_panic(message: *const c_char) -> !;
}

/// A message with a zero at its end. What does not fit is cut.
struct Message {
    bytes: [u8; MESSAGE],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..MESSAGE - 1];
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

/// Hands a panic to the kernel.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut message = Message { bytes: [0; MESSAGE], len: 0 };
    // `Message` returns no error.
    let _complete = write!(message, "{info}");
    // SAFETY: the kernel defines the function, as `xen_contig.h` says. The message ends with a zero, because
    // its last byte is never written.
    unsafe { xc_panic(message.bytes.as_ptr().cast()) }
}
