//! Text for C: bytes with a zero at the end, cut where the caller's memory ends.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};

/// The most bytes of a name that errors and reports contain.
const NAME: usize = 64;

/// Writes text into the caller's memory and counts all of it.
struct Cut {
    next: *mut c_char,
    remaining: usize,
    written: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.written += text.len();
        // Only whole characters, so that what is cut is still UTF-8.
        let mut bytes = text.len().min(self.remaining);
        while !text.is_char_boundary(bytes) {
            bytes -= 1;
        }
        // SAFETY: `remaining` bytes from `next` on are the caller's: the requirement of `write`.
        unsafe {
            self.next.copy_from_nonoverlapping(text.as_ptr().cast(), bytes);
            self.next = self.next.add(bytes);
        }
        // Once a part was cut, all that follows is left out.
        self.remaining = if bytes < text.len() { 0 } else { self.remaining - bytes };
        Ok(())
    }
}

/// Writes a value as text with a zero at the end. Returns the bytes of the whole text without that zero, as
/// `snprintf` does.
///
/// # Safety
/// `size` bytes from `buffer` on may be written, unless the pointer is null.
pub unsafe fn write(buffer: *mut c_char, size: usize, value: &dyn fmt::Display) -> usize {
    let size = if buffer.is_null() { 0 } else { size };
    let mut cut = Cut { next: buffer, remaining: size.saturating_sub(1), written: 0 };
    // `Cut` returns no error, and no `Display` of the library makes one of its own.
    let _complete = write!(cut, "{value}");
    if size > 0 {
        // SAFETY: `remaining` began one below `size`, so `next` is within the caller's bytes.
        unsafe { cut.next.write(0) };
    }
    cut.written
}

/// Returns a name for errors and reports: the first 64 bytes, up to the first that is not UTF-8. A null pointer
/// stands for `default`.
///
/// # Safety
/// `name` is null, or text with a zero at the end that stays as it is for as long as the value is used.
pub unsafe fn name(name: *const c_char, default: &'static str) -> &'static str {
    if name.is_null() {
        return default;
    }
    // SAFETY: the text ends with a zero and stays: the function's requirement.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    let bytes = &bytes[..bytes.len().min(NAME)];
    match core::str::from_utf8(bytes) {
        Ok(name) => name,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(default),
    }
}
