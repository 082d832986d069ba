//! The stretch of virtual addresses that areas are cut from.
//!
//! Addresses go round in one direction: free, an area's, retired, and free again when a flush has
//! covered them. Each step takes what the one before gave, and nothing here can be copied; so
//! [`Space::reuse`] is the only way back.

use crate::bitmap::Bitmap;
use crate::paging::{FlushClock, FlushTime};

/// Pages that belong to an area, and its guard page behind them.
#[derive(Debug)]
pub(super) struct Pages {
    first: u32,
    count: u32,
}

impl Pages {
    /// The numbers of the pages, without the guard.
    pub fn numbers(&self) -> core::ops::Range<u32> {
        self.first..self.first + self.count
    }

    /// How many, without the guard.
    pub const fn count(&self) -> u32 {
        self.count
    }
}

/// Pages whose entries are gone, but which a vCPU may remember.
#[derive(Debug)]
pub(super) struct Retired {
    pages: Pages,
    /// When the last entry was gone.
    at: FlushTime,
}

impl Retired {
    /// How many pages, without the guard.
    pub const fn count(&self) -> u32 {
        self.pages.count
    }
}

/// The pages that are free.
#[derive(Debug)]
pub(super) struct Space<'m> {
    free: Bitmap<'m>,
}

impl<'m> Space<'m> {
    /// All of `pages` pages, but the last: it guards what lies behind the stretch.
    pub fn new(words: &'m mut [u64], pages: u32) -> Self {
        let mut free = Bitmap::new(words, pages.into());
        let _empty_before = free.give(0, u64::from(pages).saturating_sub(1));
        Self { free }
    }

    /// The pages of the largest area that a stretch of `pages` pages has room for: all of it but the
    /// area's own guard page and the last page.
    pub const fn largest(pages: u32) -> u32 {
        pages.saturating_sub(2)
    }

    /// How many are free.
    pub const fn free(&self) -> u32 {
        self.free.free() as u32
    }

    /// Takes `count` pages and one more, which stays unmapped.
    pub fn take(&mut self, count: u32) -> Option<Pages> {
        let first = self.free.take(u64::from(count) + 1, 1)?;
        Some(Pages { first: first as u32, count })
    }

    /// Takes note that the last entry of these pages is gone.
    pub fn retire(pages: Pages, clock: &FlushClock) -> Retired {
        Retired { pages, at: clock.now() }
    }

    /// Frees pages that a flush of all vCPUs has covered.
    ///
    /// # Errors
    /// Pages that none has covered yet.
    pub fn reuse(&mut self, retired: Retired, clock: &FlushClock) -> Result<(), Retired> {
        if !clock.covers(retired.at) {
            return Err(retired);
        }
        let Pages { first, count } = retired.pages;
        let given = self.free.give(first.into(), u64::from(count) + 1);
        debug_assert!(given.is_ok(), "pages are taken once and given once");
        Ok(())
    }
}
