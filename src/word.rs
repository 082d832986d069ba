//! Words of memory, and the order of their bytes.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// A value that is read or written by a single access.
///
/// The words are `u8`, `u16`, `u32` and `u64`, and [`Le`] and [`Be`] of these. A kernel that
/// implements [`GuestMemory::load`](crate::paging::GuestMemory::load) by other means than a pointer
/// turns a word into its [bits](Self::to_bits) and back.
pub trait Word: Pod + private::Sealed {
    /// Returns the bits of the word, as the processor loads them, in the low bits of an integer.
    ///
    /// The number of bits is 8 times the size of the word.
    fn to_bits(self) -> u64;

    /// Returns the word with these bits. Bits beyond its size are dropped.
    fn from_bits(bits: u64) -> Self;
}

mod private {
    /// Implemented by no type of another crate: the processor has no other words.
    pub trait Sealed {}

    /// An integer, whose bytes can be in either order.
    pub trait Integer: super::Word {
        /// Returns the integer whose bytes in memory are those of `self`, the lowest first.
        fn little(self) -> Self;

        /// Returns the integer whose bytes in memory are those of `self`, the highest first.
        fn big(self) -> Self;
    }
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl private::Sealed for $integer {}

        impl Word for $integer {
            fn to_bits(self) -> u64 {
                self.into()
            }

            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }

        impl private::Integer for $integer {
            fn little(self) -> Self {
                self.to_le()
            }

            fn big(self) -> Self {
                self.to_be()
            }
        }
    )*};
}

integers!(u8 u16 u32 u64);

/// An integer whose lowest byte is the first in memory.
///
/// `T` is `u8`, `u16`, `u32` or `u64`. The size and the alignment are those of `T`, so that a field of
/// a descriptor is accessed at once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Le<T>(T);

/// An integer whose highest byte is the first in memory.
///
/// `T` is `u8`, `u16`, `u32` or `u64`. The size and the alignment are those of `T`, so that a field of
/// a descriptor is accessed at once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Be<T>(T);

macro_rules! orders {
    ($($order:ident by $convert:ident)*) => {$(
        impl<T: private::Integer> $order<T> {
            /// Returns the value with its bytes in this order.
            pub fn new(value: T) -> Self {
                Self(value.$convert())
            }

            /// Returns the value in the processor's own order.
            pub fn get(self) -> T {
                self.0.$convert()
            }
        }

        impl<T: private::Integer> From<T> for $order<T> {
            fn from(value: T) -> Self {
                Self::new(value)
            }
        }

        impl<T: private::Integer + fmt::Debug> fmt::Debug for $order<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.get().fmt(f)
            }
        }

        // SAFETY: the only field is zeroable, and the type has its layout.
        unsafe impl<T: Zeroable> Zeroable for $order<T> {}
        // SAFETY: the only field is plain data, and the type has its layout.
        unsafe impl<T: Pod> Pod for $order<T> {}

        impl<T: private::Integer> private::Sealed for $order<T> {}

        impl<T: private::Integer> Word for $order<T> {
            fn to_bits(self) -> u64 {
                self.0.to_bits()
            }

            fn from_bits(bits: u64) -> Self {
                Self(T::from_bits(bits))
            }
        }
    )*};
}

orders!(Le by little Be by big);

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    #[test]
    fn bytes_are_in_their_order_and_values_return() {
        assert_eq!(bytemuck::cast::<_, [u8; 4]>(Le::new(0x0102_0304_u32)), [4, 3, 2, 1]);
        assert_eq!(bytemuck::cast::<_, [u8; 4]>(Be::new(0x0102_0304_u32)), [1, 2, 3, 4]);
        assert_eq!(bytemuck::cast::<_, [u8; 2]>(Be::new(0x0102_u16)), [1, 2]);
        assert_eq!(bytemuck::cast::<_, [u8; 8]>(Be::from(1_u64)), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((Le::new(7_u8).get(), Be::new(7_u8).get()), (7, 7));
        assert_eq!((Le::new(0x1234_u16).get(), Be::new(0x1234_u16).get()), (0x1234, 0x1234));
        assert_eq!(Be::<u64>::from_bits(Be::new(5_u64).to_bits()).get(), 5);
        assert_eq!(format!("{:?} {:?}", Le::new(5_u16), Be::new(6_u32)), "5 6");
        assert_eq!(align_of::<Be<u64>>(), 8);
    }
}
