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

/// `XENIRQSTAT_needs_eoi`: Xen sends the next event of this interrupt only after the end of this one.
pub const NEEDS_EOI: u32 = 1;

/// `struct physdev_irq_status_query`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct IrqStatusQuery {
    /// The physical interrupt.
    pub irq: u32,
    /// The answer, `XENIRQSTAT_*`.
    pub flags: u32,
}
assert_layout!(IrqStatusQuery, size 8, irq @ 0, flags @ 4);

/// `struct physdev_eoi`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Eoi {
    /// The physical interrupt.
    pub irq: u32,
}
assert_layout!(Eoi, size 4, irq @ 0);
