//! Which types can be values in DMA memory. What cannot does not compile.

use crate::addr::PAGE_SIZE;

/// Returns the bytes of a value.
///
/// A type without bytes, or with an alignment above a page, does not compile.
pub const fn size_of_value<T>() -> u64 {
    const {
        assert!(size_of::<T>() > 0, "a value in DMA memory needs at least one byte");
        assert!(align_of::<T>() <= PAGE_SIZE, "DMA memory is aligned to pages, and not to more");
    }
    size_of::<T>() as u64
}

/// Returns the bytes of `count` values; `u64::MAX`, which no buffer has, if no integer holds them.
pub const fn size_of_values<T>(count: usize) -> u64 {
    size_of_value::<T>().saturating_mul(count as u64)
}
