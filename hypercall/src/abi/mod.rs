//! Structures and constants of Xen's public headers that `xen-sys` lacks.
//!
//! Each structure is `repr(C)` and names its header; its size and offsets are asserted at compile
//! time.

pub mod console;
pub mod grant_table;
pub mod hvm;
pub mod memory;
pub mod pci;
pub mod physdev;
pub mod sched;
pub mod vcpu;
pub mod version;
pub mod xenstore;

/// Asserts the size of a structure and the offsets of its fields at compile time.
macro_rules! assert_layout {
    ($type:ty, size $size:literal, $($field:ident @ $offset:literal),+ $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)+
        };
    };
}
pub(crate) use assert_layout;
