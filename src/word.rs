//! Words of memory.

/// An integer that is read and written by a single access: `u8`, `u16`, `u32` or `u64`.
///
/// A kernel that implements [`GuestMemory::load`](crate::paging::GuestMemory::load) by other means
/// than a pointer turns the word into its [bits](Self::to_bits) and back.
pub trait Word: Copy + private::Sealed {
    /// Returns the bits of the word in the low bits of an integer.
    ///
    /// The number of bits is 8 times the size of the word.
    fn to_bits(self) -> u64;

    /// Returns the word with these bits. Bits beyond its size are dropped.
    fn from_bits(bits: u64) -> Self;
}

mod private {
    /// Implemented by no type of another crate: the processor has no other widths.
    pub trait Sealed {}
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
    )*};
}

integers!(u8 u16 u32 u64);
