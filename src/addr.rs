//! The words for frames and addresses, one newtype per number space.
//!
//! The frame numbers come from the hypercall crate, whose arguments they are; the virtual address
//! is `x86_64`'s. Conversions between number spaces go through [`P2m`](crate::p2m::P2m) and the
//! page tables, never through arithmetic.

use core::fmt;

pub use hypercall::{AddressBits, Gfn, Mfn, Order, OutOfRange, PAGE_SIZE, Pfn, VirtAddr};

/// Bits of a byte address that lie within a frame.
pub const PAGE_SHIFT: u32 = 12;

macro_rules! byte_address {
    ($(#[$doc:meta])* $name:ident of $frame:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Names a byte of this address space.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// The first byte of a frame.
            pub const fn of(frame: $frame) -> Self {
                Self(frame.number() << PAGE_SHIFT)
            }

            /// The bare address.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The frame that the byte is in.
            pub const fn frame(self) -> $frame {
                $frame::new(self.0 >> PAGE_SHIFT)
            }

            /// The byte's place in its frame.
            pub const fn offset(self) -> usize {
                (self.0 % PAGE_SIZE as u64) as usize
            }

            /// The address `bytes` further on, or `None` past the end of the address space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

byte_address! {
    /// A byte of the machine's memory.
    MachineAddr of Mfn
}
byte_address! {
    /// A byte of the guest's pseudo-physical memory.
    PseudoPhysAddr of Pfn
}
byte_address! {
    /// What goes into a device register: a machine address in PV, a guest one in PVH.
    DmaAddr of Gfn
}
