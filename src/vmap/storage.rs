//! Memory for the registry: one block that the embedding kernel lends.

use super::alias_index::{NONE, PageSlot};
use super::record::AreaRecord;
use crate::bitmap::Bitmap;

/// The numbers that decide how much memory the registry needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmapSizes {
    /// Frames of the guest, populated or not.
    pub frames: u32,
    /// Pages of the stretch of addresses.
    pub pages: u32,
    /// The most areas, including those whose addresses wait for a flush.
    pub areas: u32,
}

impl VmapSizes {
    /// Bytes of the block: 4 per frame, 16 and one bit per page, and one record per area.
    pub const fn bytes(&self) -> usize {
        // The factors are 32 bits wide, so the sum stays far below 64 bits.
        let records = self.areas as usize * size_of::<AreaRecord>();
        records
            + Bitmap::words(self.pages as u64) * 8
            + self.pages as usize * size_of::<PageSlot>()
            + self.frames as usize * 4
    }
}

/// Memory for the registry.
#[derive(Debug)]
pub struct VmapMemory<'m> {
    pub(super) records: &'m mut [AreaRecord],
    pub(super) bitmap: &'m mut [u64],
    pub(super) slots: &'m mut [PageSlot],
    pub(super) heads: &'m mut [u32],
}

impl VmapMemory<'_> {
    /// Prepares a block of [`VmapSizes::bytes`] bytes.
    ///
    /// # Safety
    /// For all of `'m` the block
    /// * is mapped, readable and writable, and aligned to 8 bytes;
    /// * has no other user, and no [`FrameRun`](crate::frames::FrameRun) names a frame of it
    ///   ([M1](crate::rules#M1)).
    pub unsafe fn place(block: *mut u8, sizes: VmapSizes) -> Self {
        let VmapSizes { frames, pages, areas } = sizes;
        let words = Bitmap::words(pages.into());
        let records = block.cast::<AreaRecord>();
        let bitmap = records.wrapping_add(areas as usize).cast::<u64>();
        let slots = bitmap.wrapping_add(words).cast::<PageSlot>();
        let heads = slots.wrapping_add(pages as usize).cast::<u32>();
        // SAFETY: the four pieces follow each other in the block and fill its `sizes.bytes()` bytes, so
        // they do not overlap. The block is aligned to 8 bytes, and each piece ends at a multiple of
        // the alignment of the next (asserted below). The block is writable and has no other user by
        // the requirements of `place`.
        unsafe {
            Self {
                records: fill(records, areas as usize, || AreaRecord::UNUSED),
                bitmap: fill(bitmap, words, || 0),
                slots: fill(slots, pages as usize, || PageSlot::EMPTY),
                heads: fill(heads, frames as usize, || NONE),
            }
        }
    }
}

// The pieces are in order of descending alignment, so none needs padding in front of it.
const _: () = assert!(align_of::<AreaRecord>() == 8 && size_of::<AreaRecord>().is_multiple_of(8));
const _: () = assert!(align_of::<PageSlot>() == 4 && size_of::<PageSlot>() == 16);

/// Fills a piece of memory with values.
///
/// # Safety
/// `start` is aligned for `T`. The memory there holds `count` values, is writable, and has no other
/// user for `'m`.
unsafe fn fill<'m, T>(start: *mut T, count: usize, value: impl Fn() -> T) -> &'m mut [T] {
    for index in 0..count {
        // SAFETY: `index` is below `count`, so the place is within the piece, which is aligned and
        // writable by the requirements of `fill`.
        unsafe { start.add(index).write(value()) };
    }
    // SAFETY: the loop initialized all `count` values, and the piece has no other user for `'m` by the
    // requirements of `fill`.
    unsafe { core::slice::from_raw_parts_mut(start, count) }
}
