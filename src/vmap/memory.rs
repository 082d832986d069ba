//! Where the books are kept: one block of memory that the embedding kernel lends.

use super::area::Record;
use super::index::{NONE, Slot};
use crate::bitmap::Bitmap;

/// How much there is to keep books of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Frames of the guest, populated or not.
    pub frames: u32,
    /// Pages of the stretch of addresses.
    pub pages: u32,
    /// Areas at most, those included whose addresses wait for a flush.
    pub areas: u32,
}

impl Sizes {
    /// Bytes that the books need: 4 per frame, 16 and a bit per page, and a record per area.
    pub const fn bytes(&self) -> usize {
        let records = self.areas as usize * size_of::<Record>();
        records
            + Bitmap::words(self.pages as u64) * 8
            + self.pages as usize * size_of::<Slot>()
            + self.frames as usize * 4
    }
}

/// Memory for the books.
#[derive(Debug)]
pub struct Memory<'m> {
    pub(super) records: &'m mut [Record],
    pub(super) bitmap: &'m mut [u64],
    pub(super) slots: &'m mut [Slot],
    pub(super) heads: &'m mut [u32],
}

impl Memory<'_> {
    /// Prepares a block of [`Sizes::bytes`] bytes.
    ///
    /// # Safety
    /// The block is mapped, readable and writable, aligned to 8 bytes, lies in no run (M1), and is
    /// the books' alone for `'m`.
    pub unsafe fn place(block: *mut u8, sizes: Sizes) -> Self {
        let Sizes { frames, pages, areas } = sizes;
        let words = Bitmap::words(pages.into());
        let records = block.cast::<Record>();
        let bitmap = records.wrapping_add(areas as usize).cast::<u64>();
        let slots = bitmap.wrapping_add(words).cast::<Slot>();
        let heads = slots.wrapping_add(pages as usize).cast::<u32>();
        // SAFETY: the four pieces lie in the block one after the other, by descending alignment,
        // and fill it exactly.
        unsafe {
            Self {
                records: fill(records, areas as usize, || Record::UNUSED),
                bitmap: fill(bitmap, words, || 0),
                slots: fill(slots, pages as usize, || Slot::EMPTY),
                heads: fill(heads, frames as usize, || NONE),
            }
        }
    }
}

// By descending alignment, each a multiple of the next, so that no piece needs padding.
const _: () = assert!(align_of::<Record>() == 8 && size_of::<Record>().is_multiple_of(8));
const _: () = assert!(align_of::<Slot>() == 4 && size_of::<Slot>() == 16);

/// # Safety
/// `count` of `T` fit at `start`, which is aligned for them and nobody else's.
unsafe fn fill<'m, T>(start: *mut T, count: usize, value: impl Fn() -> T) -> &'m mut [T] {
    for index in 0..count {
        // SAFETY: within the piece, by the caller's word.
        unsafe { start.add(index).write(value()) };
    }
    // SAFETY: all were just written.
    unsafe { core::slice::from_raw_parts_mut(start, count) }
}
