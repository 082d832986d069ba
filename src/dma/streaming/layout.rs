//! Where the bytes of a mapping lie in its bounce memory.

use core::ops::Range;

use super::bounced_pages::BouncedPages;
use super::source::{Source, SourcePage};
use crate::addr::PAGE_SIZE;
use crate::dma::segments::{Piece, round_down};

const PAGE: u64 = PAGE_SIZE as u64;

/// Where the bytes of a mapping lie in its bounce memory.
#[derive(Clone, Copy, Debug)]
pub enum BounceLayout {
    /// The bounce memory has a page for each bounced page. The bytes keep their offset in the page, rounded
    /// down to the alignment.
    ByPage {
        /// The pages.
        bounced: BouncedPages,
        /// The alignment of each segment.
        align: u64,
    },
    /// All bytes lie side by side in the bounce memory.
    Dense {
        /// The offset of the first byte, below a page.
        first: u64,
    },
}

/// A part of a mapping that is contiguous in its bounce memory.
#[derive(Clone, Copy, Debug)]
pub struct BouncedPart {
    /// The first byte for the processor.
    pub pointer: *mut u8,
    /// The offset of the first byte in the bounce memory.
    pub at: u64,
    /// The number of bytes.
    pub len: u64,
}

impl BounceLayout {
    /// Nothing is bounced.
    pub const NONE: Self = Self::ByPage { bounced: BouncedPages::NONE, align: 1 };

    /// Iterates over the pages of a mapping, each with its place in the bounce memory if it is bounced.
    pub fn pages(&self, source: &Source<'_>) -> impl Iterator<Item = (SourcePage, Option<u64>)> {
        let mut next = 0;
        source.pages().map(move |page| match self {
            Self::ByPage { bounced, align } if bounced.contains(page.index) => {
                let at = next + round_down(page.in_page(), *align);
                next += PAGE;
                (page, Some(at))
            }
            Self::ByPage { .. } => (page, None),
            Self::Dense { first } => (page, Some(first + page.offset)),
        })
    }

    /// Iterates over what is bounced of a range of the mapping's bytes.
    pub fn bounced_parts(
        &self,
        source: &Source<'_>,
        range: Range<u64>,
    ) -> impl Iterator<Item = BouncedPart> {
        self.pages(source).take_while(move |(page, _)| page.offset < range.end).filter_map(
            move |(page, at)| {
                let skipped = range.start.saturating_sub(page.offset).min(page.len);
                let end = page.len.min(range.end - page.offset);
                let len = end.saturating_sub(skipped);
                let pointer = page.pointer.wrapping_add(skipped as usize);
                Some(BouncedPart { pointer, at: at? + skipped, len }).filter(|part| part.len > 0)
            },
        )
    }
}

/// The device addresses of bounce memory, for places that are asked for first to last.
pub struct BounceAddresses<I> {
    pieces: I,
    current: Piece,
    /// The offset of the current piece in the bounce memory.
    offset: u64,
}

impl<I: Iterator<Item = Piece>> BounceAddresses<I> {
    pub const fn new(pieces: I) -> Self {
        Self { pieces, current: Piece { address: 0, bytes: 0 }, offset: 0 }
    }

    /// Returns the device address of the byte at offset `at`.
    pub fn of(&mut self, at: u64) -> Option<u64> {
        while at - self.offset >= self.current.bytes {
            self.offset += self.current.bytes;
            self.current = self.pieces.next()?;
        }
        Some(self.current.address + (at - self.offset))
    }
}
