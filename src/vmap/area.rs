//! An area as its owner holds it.

use core::fmt;
use core::ops::Range;

use crate::addr::{PAGE_SIZE, VirtAddr};

/// Which area, among all that have ever had the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AreaId {
    pub record: u32,
    pub generation: u32,
}

/// A virtual area: frames mapped side by side.
///
/// [`Vmap::vunmap`](super::Vmap::vunmap) ends it. An area that is dropped stays mapped for ever.
/// Memory of an area is accessed through raw pointers alone, because its frames may have other users
/// ([M5](crate::rules#M5)).
#[derive(PartialEq, Eq)]
#[must_use = "an area that is dropped stays mapped; end it with Vmap::vunmap"]
pub struct Area {
    id: AreaId,
    first: u32,
    pages: u32,
    address: VirtAddr,
}

impl Area {
    pub(super) const fn new(id: AreaId, first: u32, pages: u32, address: VirtAddr) -> Self {
        Self { id, first, pages, address }
    }

    pub(super) const fn id(&self) -> AreaId {
        self.id
    }

    pub(super) const fn page_numbers(&self) -> Range<u32> {
        self.first..self.first + self.pages
    }

    /// The address of the first byte.
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// A pointer to the first byte.
    pub const fn pointer(&self) -> *mut u8 {
        self.address.as_mut_ptr()
    }

    /// The number of pages.
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// The number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "an area has at least one page")]
    pub const fn len(&self) -> usize {
        self.pages as usize * PAGE_SIZE
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Area({} pages at {:#x})", self.pages, self.address)
    }
}
