//! The segments of a buffer or mapping, computed from its pieces and the limits of the device.
//!
//! A *piece* is what memory offers: bytes whose device addresses follow each other. A *segment* is what
//! the device takes: an address and a length. A piece can hold many segments, and a segment never
//! spans two pieces.
//!
//! # The cut
//! A piece is cut from its begin to its end. Each segment is as long as the piece, the longest segment
//! and the next boundary allow. If the piece goes on after it, it ends at a multiple of the alignment,
//! because the next segment begins there.
//!
//! No other cut has fewer segments. Let *f(a)* be where the segment that begins at *a* ends. A later
//! begin never ends earlier: *f(a) ≤ f(b)* for *a ≤ b*. So after each segment this cut is at least as
//! far as any other cut, and where it cannot go on, no other cut gets past that address either.

use core::iter::FusedIterator;

use super::constraints::Constraints;
use crate::addr::{DmaAddr, Gfn, PAGE_SIZE};

const PAGE: u64 = PAGE_SIZE as u64;

/// A part of a buffer that a device sees as one address and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The address of its first byte for the device.
    pub dma: DmaAddr,
    /// The offset of its first byte in the buffer.
    pub offset: u64,
    /// The number of bytes.
    pub len: u64,
}

/// A part of a buffer or mapping that is contiguous for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The address of its first byte for the device.
    pub address: u64,
    /// The number of bytes.
    pub bytes: u64,
}

impl Piece {
    /// Returns `frames` whole frames from `first` on. The address saturates: no device reaches the last
    /// address.
    pub(super) const fn of_frames(first: Gfn, frames: u64) -> Self {
        let address = first.number().saturating_mul(PAGE);
        Self { address, bytes: frames.saturating_mul(PAGE) }
    }

    /// Returns the address after the piece, if addresses do not overflow.
    pub(super) const fn end(self) -> Option<u64> {
        self.address.checked_add(self.bytes)
    }
}

/// Pieces of which no two neighbours are contiguous: contiguous ones are joined, empty ones left out.
#[derive(Clone, Debug)]
pub(super) struct JoinedPieces<I> {
    pieces: I,
    next: Option<Piece>,
}

impl<I: Iterator<Item = Piece>> JoinedPieces<I> {
    pub const fn new(pieces: I) -> Self {
        Self { pieces, next: None }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for JoinedPieces<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut joined = self.next.take().or_else(|| self.pieces.find(|it| it.bytes > 0))?;
        for piece in self.pieces.by_ref().filter(|it| it.bytes > 0) {
            if joined.end() != Some(piece.address) {
                self.next = Some(piece);
                break;
            }
            joined.bytes = joined.bytes.saturating_add(piece.bytes);
        }
        Some(joined)
    }
}

/// The limits of a device that say where a piece is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutRules {
    align: u64,
    boundary: Option<u64>,
    max_segment: u64,
}

impl CutRules {
    pub const fn new(limits: &Constraints) -> Self {
        Self {
            align: limits.align(),
            boundary: limits.boundary(),
            max_segment: limits.max_segment(),
        }
    }

    /// Returns the rules for mappings, which have an alignment of their own.
    pub const fn for_streaming(limits: &Constraints) -> Self {
        Self { align: limits.streaming_align(), ..Self::new(limits) }
    }

    /// Returns the number that the address of each segment is a multiple of.
    pub const fn align(&self) -> u64 {
        self.align
    }

    /// Returns the same rules for a buffer that begins at `address`, which may lack the alignment.
    pub fn aligned_for(self, address: DmaAddr) -> Self {
        let align = match address.get() {
            0 => self.align,
            address => self.align.min(1 << address.trailing_zeros()),
        };
        Self { align, ..self }
    }

    /// Returns the length of the longest segment anywhere.
    pub fn longest(&self) -> u64 {
        self.max_segment.min(self.boundary.unwrap_or(u64::MAX))
    }

    /// Returns the length of the longest segment after which the piece can go on.
    pub fn longest_inside(&self) -> u64 {
        round_down(self.longest(), self.align)
    }

    /// Returns the length of the segment that begins at `address` with `bytes` bytes of the piece to
    /// come, or `None` if the piece cannot be cut there.
    fn segment(&self, address: u64, bytes: u64) -> Option<u64> {
        let limit = self.max_segment.min(self.until_boundary(address));
        let len = if bytes <= limit { bytes } else { round_down(limit, self.align) };
        (len > 0 && is_aligned(address, self.align)).then_some(len)
    }

    /// Returns the number of segments of `bytes` bytes at `address`, or `None` if these bytes cannot be
    /// cut. Takes constant time.
    // Inlined, because most memory crosses no boundary. Then little is to do.
    #[inline]
    pub fn count(&self, address: u64, bytes: u64) -> Option<u64> {
        if !is_aligned(address, self.align) {
            return None;
        }
        let head = self.until_boundary(address).min(bytes);
        match self.boundary {
            Some(boundary) if head < bytes => self.count_across(boundary, head, bytes - head),
            _ => self.count_within(bytes),
        }
    }

    /// Returns the number of segments of `head` bytes before a boundary and `rest` bytes after it.
    #[inline(never)]
    fn count_across(&self, boundary: u64, head: u64, rest: u64) -> Option<u64> {
        // A segment begins at each boundary, so that must be aligned.
        let aligned = is_aligned(boundary, self.align);
        let (windows, tail) = (rest / boundary, rest % boundary);
        let windows = windows.checked_mul(self.count_within(boundary)?)?;
        let tail = if tail == 0 { 0 } else { self.count_within(tail)? };
        let count = self.count_within(head)?.checked_add(windows)?.checked_add(tail);
        count.filter(|_| aligned)
    }

    /// Returns the number of segments of `bytes` bytes that cross no boundary.
    fn count_within(&self, bytes: u64) -> Option<u64> {
        if bytes <= self.max_segment {
            return Some(1);
        }
        let inside = round_down(self.max_segment, self.align);
        (inside > 0).then(|| 1 + (bytes - self.max_segment).div_ceil(inside))
    }

    /// Returns the number of bytes from `address` to the next boundary.
    pub fn until_boundary(&self, address: u64) -> u64 {
        self.boundary.map_or(u64::MAX, |boundary| boundary - (address & (boundary - 1)))
    }
}

/// Rounds down to a multiple of a power of two.
pub(super) const fn round_down(value: u64, power_of_two: u64) -> u64 {
    value & !(power_of_two - 1)
}

/// Returns true if a value is a multiple of a power of two.
pub(super) const fn is_aligned(value: u64, power_of_two: u64) -> bool {
    round_down(value, power_of_two) == value
}

/// The segments of a buffer, first to last. Nothing is stored: each one is computed when it is asked
/// for, in constant time and without an allocation.
#[derive(Clone, Debug)]
pub struct Segments<I> {
    pieces: JoinedPieces<I>,
    rules: CutRules,
    /// The bytes of the current piece that are not cut yet.
    address: u64,
    piece: u64,
    /// The first byte that is not cut yet, as an offset into the buffer, and the buffer's length.
    offset: u64,
    size: u64,
}

impl<I: Iterator<Item = Piece>> Segments<I> {
    /// Returns the segments of a buffer of `size` bytes in `pieces` for a device with these limits.
    ///
    /// They cover the buffer if the device takes the pieces, as the plan of a request decides. Of other
    /// pieces, the segments end before the first byte that no aligned segment holds.
    pub(super) const fn new(pieces: I, size: u64, rules: CutRules) -> Self {
        let pieces = JoinedPieces::new(pieces);
        Self { pieces, rules, address: 0, piece: 0, offset: 0, size }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for Segments<I> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let remaining = self.size - self.offset;
        if remaining == 0 {
            return None;
        }
        if self.piece == 0
            && let Some(piece) = self.pieces.next()
        {
            (self.address, self.piece) = (piece.address, piece.bytes.min(remaining));
        }
        let Some(len) = self.rules.segment(self.address, self.piece) else {
            self.size = self.offset;
            return None;
        };
        let segment = Segment { dma: DmaAddr::new(self.address), offset: self.offset, len };
        self.offset += len;
        self.address = self.address.saturating_add(len);
        self.piece -= len;
        Some(segment)
    }
}

impl<I: Iterator<Item = Piece>> FusedIterator for Segments<I> {}
