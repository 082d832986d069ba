//! Structures and constants of Xen's public headers that `xen-sys` lacks.
//!
//! Each is `repr(C)` with its size and offsets asserted at compile time and names its header.

pub mod console;
pub mod hvm;
pub mod memory;
pub mod physdev;
pub mod sched;
pub mod vcpu;
pub mod version;
pub mod xenstore;

/// Asserts the layout of a structure at compile time: its size and the offset of each field.
macro_rules! assert_layout {
    ($type:ty, size $size:literal, $($field:ident @ $offset:literal),+ $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)+
        };
    };
}
pub(crate) use assert_layout;
