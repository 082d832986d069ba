//! The numbers that name memory, one type per number space, without arithmetic between them.
//!
//! | word | meaning |
//! |---|---|
//! | [`Pfn`] | guest frame number: the guest's own numbering without gaps (pseudo-physical) |
//! | [`Mfn`] | machine frame number: in the page tables of a PV guest, and what its devices see |
//! | [`Gfn`] | the frame number in the guest's own page tables: an `Mfn` in PV, a `Pfn` in PVH |
//! | [`Order`] | a run of `1 << order` frames of 4 KiB |
//! | [`AddressBits`] | the width of an address limit, as Xen takes it |
//! | [`DomId`] | a domain |

use core::fmt;

/// The number of bytes in a frame.
pub const PAGE_SIZE: usize = 4096;

/// A number that is outside the range of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// What the number stands for, such as `order`.
    pub what: &'static str,
    /// The number.
    pub value: u64,
    /// The smallest number allowed.
    pub min: u64,
    /// The largest number allowed.
    pub max: u64,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} is not in {}..={}", self.what, self.value, self.min, self.max)
    }
}

impl core::error::Error for OutOfRange {}

macro_rules! frame_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Makes the number of a frame, whether or not the frame exists.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the number.
            pub const fn number(self) -> u64 {
                self.0
            }

            /// Returns the frame that lies `count` frames further.
            ///
            /// # Panics
            /// If the number overflows 64 bits. Frame numbers of x86 have at most 52 bits.
            #[must_use]
            pub const fn add(self, count: u64) -> Self {
                Self(self.0.checked_add(count).expect("frame number overflow"))
            }

            /// Returns true if an extent of that order can begin at this frame.
            pub const fn is_aligned(self, order: Order) -> bool {
                self.0 & (order.frames() - 1) == 0
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

frame_number! {
    /// Guest frame number: the guest's own numbering without gaps (pseudo-physical).
    Pfn
}
frame_number! {
    /// Machine frame number: in the page tables of a PV guest, and what its devices see.
    Mfn
}
frame_number! {
    /// The frame number in the guest's own page tables: an [`Mfn`] in PV, a [`Pfn`] in PVH.
    Gfn
}

/// A power-of-two run of 4 KiB frames, order 0 (4 KiB) to 18 (1 GiB).
///
/// 18 is the highest order that Xen on x86 serves to any domain (`CONFIG_CTLDOM_MAX_ORDER`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const ZERO: Self = Self(0);
    /// 1 GiB.
    pub const MAX: Self = Self(18);

    /// Makes an order.
    ///
    /// # Errors
    /// If the order is not in 0..=18.
    pub const fn new(order: u32) -> Result<Self, OutOfRange> {
        if order <= Self::MAX.0 as u32 {
            Ok(Self(order as u8))
        } else {
            Err(OutOfRange { what: "order", value: order as u64, min: 0, max: Self::MAX.0 as u64 })
        }
    }

    /// Returns the exponent.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// Returns the number of frames in the run.
    pub const fn frames(self) -> u64 {
        1 << self.0
    }

    /// Returns the number of bytes in the run.
    pub const fn bytes(self) -> u64 {
        self.frames() * PAGE_SIZE as u64
    }

    /// Returns the next higher order, or `None` for the highest.
    pub const fn next(self) -> Option<Self> {
        if self.0 < Self::MAX.0 { Some(Self(self.0 + 1)) } else { None }
    }

    /// Iterates over all orders from 0 to this one.
    pub fn up_to(self) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (0..=self.0).map(Self)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Order({})", self.0)
    }
}

/// The width in bits of an address limit, 13..=64. Every byte of the memory lies below `2^bits`.
///
/// Other values are not useful (`XENMEMF_address_bits`, `domain_clamp_alloc_bitsize`): Xen takes 0
/// and more than 64 as "no limit", and has no memory for 12 or less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressBits(u8);

impl AddressBits {
    /// A limit above all memory.
    pub const UNLIMITED: Self = Self(64);

    /// Makes a width.
    ///
    /// # Errors
    /// If the width is not in 13..=64.
    pub const fn new(bits: u32) -> Result<Self, OutOfRange> {
        if bits >= 13 && bits <= 64 {
            Ok(Self(bits as u8))
        } else {
            Err(OutOfRange { what: "address bits", value: bits as u64, min: 13, max: 64 })
        }
    }

    /// Returns the number of bits.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// Returns the first frame number past the limit.
    pub const fn frame_limit(self) -> u64 {
        1 << (self.0 - 12)
    }
}

impl fmt::Display for AddressBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AddressBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressBits({})", self.0)
    }
}

/// The number of a domain (`domid_t` in `public/xen.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct DomId(pub u16);

impl DomId {
    /// The calling domain (`DOMID_SELF`).
    pub const SELF: Self = Self(0x7ff0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_bits_have_edges() {
        assert_eq!(Order::new(18), Ok(Order::MAX));
        assert_eq!(Order::new(19).unwrap_err().value, 19);
        assert_eq!(Order::MAX.bytes(), 1 << 30);
        assert_eq!(Order::MAX.next(), None);
        assert!(AddressBits::new(12).is_err() && AddressBits::new(65).is_err());
        assert_eq!(AddressBits::new(13).unwrap().frame_limit(), 2);
        assert_eq!(AddressBits::UNLIMITED.frame_limit(), 1 << 52);
    }

    #[test]
    fn alignment_is_of_the_order() {
        let order = Order::new(9).unwrap();
        assert!(Mfn::new(0x200).is_aligned(order) && !Mfn::new(0x1ff).is_aligned(order));
    }
}
