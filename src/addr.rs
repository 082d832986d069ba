//! The types for frame numbers and addresses, one per number space.
//!
//! The frame numbers come from the hypercall crate, which takes them as arguments. The virtual address
//! comes from `x86_64`. Only [`P2m`](crate::p2m::P2m) and the page tables convert from one number space
//! to another; arithmetic does not.

use core::fmt;

pub use hypercall::{AddressBits, Gfn, Mfn, Order, OutOfRange, PAGE_SIZE, Pfn, VirtAddr};

/// The number of bits of a byte address that lie within a frame.
pub const PAGE_SHIFT: u32 = 12;

macro_rules! byte_address {
    ($(#[$doc:meta])* $name:ident of $frame:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Returns the address of a byte.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// Returns the address of the first byte of a frame.
            ///
            /// # Panics
            /// If the address overflows 64 bits, which no address of x86 comes near.
            pub const fn of(frame: $frame) -> Self {
                match frame.number().checked_mul(PAGE_SIZE as u64) {
                    Some(address) => Self(address),
                    None => panic!("frame number overflow"),
                }
            }

            /// Returns the bare address.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the frame that the byte is in.
            pub const fn frame(self) -> $frame {
                $frame::new(self.0 >> PAGE_SHIFT)
            }

            /// Returns the offset of the byte in its frame.
            pub const fn offset(self) -> usize {
                (self.0 % PAGE_SIZE as u64) as usize
            }

            /// Returns the address `bytes` further on, or `None` past the end of the address space.
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
    /// An address for a device register: a machine address in PV, a pseudo-physical one in PVH.
    DmaAddr of Gfn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_its_frame_agree() {
        let address = MachineAddr::of(Mfn::new(5));
        assert_eq!((address.get(), address.frame(), address.offset()), (0x5000, Mfn::new(5), 0));
        let within = address.checked_add(0x1234).unwrap();
        assert_eq!((within.frame(), within.offset()), (Mfn::new(6), 0x234));
        assert_eq!(address.checked_add(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "frame number overflow")]
    fn a_frame_beyond_all_addresses_has_none() {
        let _cut_off = MachineAddr::of(Mfn::new(1 << 52));
    }
}
