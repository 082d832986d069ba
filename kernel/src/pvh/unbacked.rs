//! Returns RAM that Xen has no memory for, before the kernel accesses it.
//!
//! Xen *populates on demand* a domU with `maxmem` above `memory`. The memory map contains RAM up to
//! `maxmem`, but Xen has memory for `memory` alone. Xen backs a frame at the first access, and
//! crashes the domain when no memory remains. Therefore the kernel returns the difference at boot,
//! as a balloon driver does.

use arrayvec::ArrayVec;
use hypercall::abi::memory::MemoryReservation;
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::reservation::Reservation;

use super::memory::{Bounds, Ram};
use crate::vcpu::xen;

const PAGE: u64 = PAGE_SIZE as u64;

/// The order of a large page, the largest extent that any domU may return.
const LARGE: u32 = 9;

/// The number of extents in one hypercall.
const BATCH: usize = 128;

/// The maximum number of frames that Xen counts for a PVH domU and that the memory map does not
/// contain as RAM. They hold the console and xenstore rings, I/O requests and ACPI tables: 16
/// frames with Xen 4.17.
const UNNAMED: u64 = 1024;

/// Returns to Xen the frames of `ram` that Xen has no memory for, and removes them from `ram`.
///
/// They are the highest frames. Frames below the physical address `floor` stay. The function
/// returns the number of frames.
///
/// # Safety
/// Nothing has used the frames of `ram` from `floor` on.
///
/// # Errors
/// Xen does not report how many frames it counts.
pub unsafe fn release(ram: &mut Ram, floor: u64) -> Result<u64, XenErrno> {
    let backed = current()?;
    let named: u64 = ram.iter().map(|(start, end)| (end - start) / PAGE).sum();
    let unbacked = named.saturating_sub(backed);
    let mut end_of_ram = EndOfRam { ram, floor };
    // SAFETY: by this function's contract nothing has used the frames from `floor` on.
    unsafe {
        // If memory backs the first frame, the domain is not populated on demand. Then the map
        // contains more frames than Xen counts for another reason.
        if unbacked == 0 || !end_of_ram.release_one(backed)? {
            return Ok(0);
        }
        let mut released = 1 + end_of_ram.release(unbacked - 1);
        // `backed` includes frames that the map does not contain, so a few more frames have no
        // memory. The first frame with memory ends the search.
        while released < unbacked + UNNAMED && end_of_ram.release_one(backed)? {
            released += 1;
        }
        end_of_ram.ram.retain(|(start, end)| start < end);
        Ok(released)
    }
}

/// The end of RAM, from which frames are released.
struct EndOfRam<'r> {
    ram: &'r mut Ram,
    floor: u64,
}

impl EndOfRam<'_> {
    /// Releases at most `frames` frames and returns how many Xen took.
    ///
    /// # Safety
    /// Nothing has used the frames from the floor on.
    unsafe fn release(&mut self, frames: u64) -> u64 {
        let mut released = 0;
        let mut permitted = LARGE;
        let floor = self.floor / PAGE;
        while released < frames
            && let Some(region) = self.highest()
        {
            let (first, end) = (region.0 / PAGE, region.1 / PAGE);
            let available = (end - first.max(floor)).min(frames - released);
            let fits = |order: &u32| available >= 1 << order && end.is_multiple_of(1 << order);
            let order = Some(permitted).filter(fits).unwrap_or(0);
            // Single frames are released down to the next multiple of a large page.
            let row = if order == 0 { (end - 1) % (1 << LARGE) + 1 } else { u64::MAX };
            let count = (available >> order).min(row).min(BATCH as u64);
            let list = (1..=count).map(|nth| end - (nth << order)).collect();
            // SAFETY: the frames lie between the floor and the end of a region, so by this
            // function's contract nothing has used them.
            let taken = unsafe { decrease(list, order) };
            region.1 -= (taken << order) * PAGE;
            released += taken << order;
            match (taken, order) {
                (0, 0) => break,
                // Xen may permit this domain no extents of this order (`memop-max-order`).
                (0, _) => permitted = 0,
                _ => {}
            }
        }
        released
    }

    /// Releases one frame, and populates it again if memory backed it.
    ///
    /// Returns false if no frame without memory could be released.
    ///
    /// # Safety
    /// Nothing has used the frames from the floor on.
    unsafe fn release_one(&mut self, backed: u64) -> Result<bool, XenErrno> {
        let Some(region) = self.highest() else { return Ok(false) };
        let frame = region.1 / PAGE - 1;
        let list = ArrayVec::from_iter([frame]);
        // SAFETY: the frame lies above the floor, so by this function's contract nothing has used
        // it.
        if unsafe { decrease(list, 0) } == 0 {
            return Ok(false);
        }
        region.1 -= PAGE;
        let had_memory = current()? < backed;
        if had_memory {
            region.1 += populate(frame) * PAGE;
        }
        Ok(!had_memory)
    }

    /// Returns the highest region that has frames from the floor on.
    fn highest(&mut self) -> Option<&mut Bounds> {
        let floor = self.floor;
        let regions = self.ram.iter_mut().filter(|(start, end)| *end > floor.max(*start));
        regions.max_by_key(|(_, end)| *end)
    }
}

/// Returns the number of frames that Xen counts for the domain.
fn current() -> Result<u64, XenErrno> {
    Reservation::read(xen()).map(|reservation| reservation.current())
}

/// Releases extents to Xen and returns how many Xen took, counted from the first.
///
/// # Safety
/// Nothing uses the frames.
unsafe fn decrease(mut list: ArrayVec<u64, BATCH>, order: u32) -> u64 {
    let mut extents = extents(&mut list, order);
    // SAFETY: by this function's contract nothing uses the frames. The list lives across the call.
    let taken = unsafe { xen().memory_op(MemoryOp::DecreaseReservation(&mut extents)) };
    taken.unwrap_or(0).min(list.len() as u64)
}

/// Populates a frame that has no memory. Returns 1 if Xen populated it, and 0 otherwise.
fn populate(frame: u64) -> u64 {
    let mut list = [frame];
    let mut extents = extents(&mut list, 0);
    // SAFETY: the frame was just returned to Xen, so nothing uses it. The list lives across the call.
    let given = unsafe { xen().memory_op(MemoryOp::PopulatePhysmap(&mut extents)) };
    given.unwrap_or(0).min(1)
}

fn extents(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}
