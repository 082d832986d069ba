//! `public/physdev.h`.

use super::assert_layout;

/// `struct physdev_set_iopl`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SetIopl {
    /// The I/O privilege level: 0..=3.
    pub iopl: u32,
}
assert_layout!(SetIopl, size 4, iopl @ 0);
