//! The stretch of virtual addresses that areas are cut from.
//!
//! Addresses move in one circle: free, part of an area, retired, and free again once a flush has
//! covered them. Each step consumes the value of the step before, and no value can be copied. So
//! [`AddressPool::reuse`] is the only way from retired back to free.

use crate::bitmap::Bitmap;
use crate::paging::{FlushClock, FlushTime};

/// Pages that belong to an area, followed by one guard page.
#[derive(Debug)]
pub(super) struct PageRange {
    first: u32,
    count: u32,
}

impl PageRange {
    /// The page numbers, without the guard page.
    pub fn numbers(&self) -> core::ops::Range<u32> {
        self.first..self.first + self.count
    }

    /// The number of pages, without the guard page.
    pub const fn count(&self) -> u32 {
        self.count
    }
}

/// Pages without entries, which a TLB may still remember.
#[derive(Debug)]
pub(super) struct RetiredPages {
    pages: PageRange,
    /// When the last entry was dropped.
    at: FlushTime,
}

impl RetiredPages {
    /// The number of pages, without the guard page.
    pub const fn count(&self) -> u32 {
        self.pages.count
    }
}

/// The free pages.
#[derive(Debug)]
pub(super) struct AddressPool<'m> {
    free: Bitmap<'m>,
}

impl<'m> AddressPool<'m> {
    /// All of `pages` pages except the last one, which guards what follows the stretch.
    pub fn new(words: &'m mut [u64], pages: u32) -> Self {
        let mut free = Bitmap::new(words, pages.into());
        let _empty_before = free.give(0, u64::from(pages).saturating_sub(1));
        Self { free }
    }

    /// The pages of the largest area in a stretch of `pages` pages.
    ///
    /// The guard page of the area and the last page of the stretch are not available.
    pub const fn largest(pages: u32) -> u32 {
        pages.saturating_sub(2)
    }

    /// The number of free pages.
    pub const fn free(&self) -> u32 {
        self.free.free() as u32
    }

    /// Takes `count` pages and a guard page, which stays unmapped.
    pub fn take(&mut self, count: u32) -> Option<PageRange> {
        let first = self.free.take(u64::from(count) + 1, 1)?;
        Some(PageRange { first: first as u32, count })
    }

    /// Records that the last entry of these pages was dropped.
    pub fn retire(pages: PageRange, clock: &FlushClock) -> RetiredPages {
        RetiredPages { pages, at: clock.now() }
    }

    /// Frees pages that a flush of all vCPUs has covered.
    ///
    /// # Errors
    /// The pages, if no flush has covered them yet.
    pub fn reuse(&mut self, retired: RetiredPages, clock: &FlushClock) -> Result<(), RetiredPages> {
        if !clock.covers(retired.at) {
            return Err(retired);
        }
        let PageRange { first, count } = retired.pages;
        let given = self.free.give(first.into(), u64::from(count) + 1);
        debug_assert!(given.is_ok(), "pages are taken once and given once");
        Ok(())
    }
}
