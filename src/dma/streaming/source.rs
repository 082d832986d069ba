//! The memory of a mapping, page by page.

use core::ptr::NonNull;
use core::slice;

use super::MapError;
use crate::addr::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// The ranges of bytes of a mapping, as its caller gave them.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// One range.
    One(NonNull<[u8]>),
    /// Several ranges, first to last.
    List(&'a [NonNull<[u8]>]),
}

/// How much memory a mapping has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSize {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of [pages](SourcePage).
    pub pages: u64,
}

/// The bytes of one range in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePage {
    /// Its number in the mapping. A page that two ranges share counts twice.
    pub index: u64,
    /// The first byte, from the start of the mapping.
    pub offset: u64,
    /// The first byte for the processor.
    pub pointer: *mut u8,
    /// The number of bytes.
    pub len: u64,
}

impl SourcePage {
    /// Returns the offset of the first byte in its page.
    pub fn in_page(&self) -> u64 {
        self.pointer.addr() as u64 % PAGE
    }
}

impl Source<'_> {
    fn ranges(&self) -> &[NonNull<[u8]>] {
        match self {
            Self::One(range) => slice::from_ref(range),
            Self::List(ranges) => ranges,
        }
    }

    /// Returns how much memory there is, unless the ranges are impossible in a guest of `guest` bytes.
    pub fn size(&self, guest: u64) -> Result<SourceSize, MapError> {
        let (mut bytes, mut pages) = (0_u64, 0_u64);
        for range in self.ranges().iter().filter(|range| !range.is_empty()) {
            let (address, len) = (range.cast::<u8>().addr().get() as u64, range.len() as u64);
            if address.checked_add(len).is_none() {
                return Err(MapError::PastAddressSpace { address, bytes: len });
            }
            // This can overflow only if the sum of the bytes does, too.
            pages = pages.saturating_add((address % PAGE + len).div_ceil(PAGE));
            bytes = bytes.saturating_add(len);
        }
        match bytes {
            0 => Err(MapError::Empty),
            bytes if bytes > guest => Err(MapError::LargerThanGuest { bytes, guest }),
            bytes => Ok(SourceSize { bytes, pages }),
        }
    }

    /// Exposes the provenance of the ranges.
    pub fn expose(&self) {
        for range in self.ranges() {
            let _address = range.cast::<u8>().as_ptr().expose_provenance();
        }
    }

    /// Iterates over the pages, first to last. Ranges without a byte have none.
    pub fn pages(&self) -> SourcePages<'_> {
        let start = core::ptr::null_mut();
        SourcePages { ranges: self.ranges().iter(), at: start, remaining: 0, offset: 0, index: 0 }
    }
}

/// The pages of a mapping.
#[derive(Clone, Debug)]
pub struct SourcePages<'s> {
    ranges: slice::Iter<'s, NonNull<[u8]>>,
    /// The bytes of the current range that are to come.
    at: *mut u8,
    remaining: u64,
    offset: u64,
    index: u64,
}

impl Iterator for SourcePages<'_> {
    type Item = SourcePage;

    fn next(&mut self) -> Option<SourcePage> {
        while self.remaining == 0 {
            let range = self.ranges.next()?;
            (self.at, self.remaining) = (range.cast::<u8>().as_ptr(), range.len() as u64);
        }
        let len = (PAGE - self.at.addr() as u64 % PAGE).min(self.remaining);
        let page = SourcePage { index: self.index, offset: self.offset, pointer: self.at, len };
        // It can wrap after the last byte of the address space alone, and then no byte is to come.
        self.at = self.at.wrapping_add(len as usize);
        self.remaining -= len;
        self.offset += len;
        self.index += 1;
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    const GUEST: u64 = 1 << 30;

    fn range(address: usize, len: usize) -> NonNull<[u8]> {
        let pointer = core::ptr::without_provenance_mut(address);
        NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap(), len)
    }

    #[test]
    fn ranges_become_pages() {
        let list = [range(0x1fff, 0x1002), range(8, 0), range(0x3001, 1)];
        let source = Source::List(&list);
        assert_eq!(source.size(GUEST), Ok(SourceSize { bytes: 0x1003, pages: 4 }));
        let pages: Vec<_> =
            source.pages().map(|it| (it.index, it.offset, it.pointer.addr(), it.len)).collect();
        let expected = [
            (0, 0, 0x1fff, 1),
            (1, 1, 0x2000, 0x1000),
            (2, 0x1001, 0x3000, 1),
            (3, 0x1002, 0x3001, 1),
        ];
        assert_eq!(pages, expected);
        assert_eq!(source.pages().next().map(|it| it.in_page()), Some(0xfff));
    }

    #[test]
    fn impossible_ranges_are_refused() {
        let refused = |list: &[NonNull<[u8]>]| Source::List(list).size(GUEST).unwrap_err();
        assert_eq!(refused(&[]), MapError::Empty);
        assert_eq!(refused(&[range(8, 0), range(1, 0)]), MapError::Empty);
        let past = MapError::PastAddressSpace { address: u64::MAX, bytes: 2 };
        assert_eq!(refused(&[range(usize::MAX, 2)]), past);
        let endless = [range(1, usize::MAX - 1); 3];
        assert_eq!(refused(&endless), MapError::LargerThanGuest { bytes: u64::MAX, guest: GUEST });
        let long = [range(0x1000, GUEST as usize), range(0x1000, 1)];
        let (bytes, guest) = (GUEST + 1, GUEST);
        assert_eq!(refused(&long), MapError::LargerThanGuest { bytes, guest });
        assert!(Source::One(range(usize::MAX - 1, 1)).size(GUEST).is_ok());
    }
}
