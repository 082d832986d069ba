//! The memory map of a PVH guest.

use arrayvec::ArrayVec;
use hypercall::Xen;
use hypercall::abi::memory::{E820Entry, MemoryMap};
use hypercall::ops::MemoryOp;
use pvh_boot::layout::KERNEL_BASE;
use pvh_boot::start_info::pvh::MAX_REGIONS;
use pvh_boot::start_info::{MemoryKind, MemoryRegion, memory_map};
use xen_contig::addr::PAGE_SIZE;

use crate::layout;
use crate::vcpu::xen;

const PAGE: u64 = PAGE_SIZE as u64;

/// The end of the memory that the kernel does not use. The first MiB contains firmware, tables and
/// video memory.
const LOW_MEMORY: u64 = 1 << 20;

/// A range of physical addresses: the first, and the one after the last.
pub type Bounds = (u64, u64);

/// Regions of RAM, in any order.
pub type Ram = ArrayVec<Bounds, MAX_REGIONS>;

/// Returns the memory map that Xen reports by hypercall.
pub fn map_of_xen() -> ArrayVec<MemoryRegion, MAX_REGIONS> {
    let mut entries = [E820Entry::default(); MAX_REGIONS];
    let mut map = MemoryMap { nr_entries: MAX_REGIONS as u32, buffer: entries.as_mut_ptr() };
    // SAFETY: the buffer has as many entries as the argument declares, and it lives across the
    // call.
    if let Err(errno) = unsafe { xen().memory_op(MemoryOp::MemoryMap(&mut map)) } {
        panic!("XENMEM_memory_map: {errno}");
    }
    let regions: ArrayVec<MemoryRegion, MAX_REGIONS> = entries
        .iter()
        .take(map.nr_entries as usize)
        .map(|entry| MemoryRegion {
            start: entry.start,
            len: entry.length,
            kind: MemoryKind::from(entry.kind),
        })
        .collect();
    if let Err(error) = memory_map::check(&regions) {
        panic!("XENMEM_memory_map: {error}");
    }
    regions
}

/// Returns the RAM of a memory map, in whole pages.
///
/// # Panics
/// If the map contains no RAM.
pub fn ram(map: &[MemoryRegion]) -> Ram {
    let ram: Ram = map
        .iter()
        .filter(|region| region.kind == MemoryKind::Ram)
        .map(|region| (region.start.next_multiple_of(PAGE), region.end() / PAGE * PAGE))
        .filter(|(start, end)| start < end)
        .collect();
    assert!(!ram.is_empty(), "the memory map names no RAM in its {} regions", map.len());
    ram
}

/// Returns the physical address after the image and the start info.
///
/// The domain builder places the start info, its command line and its memory map after the image.
pub fn end_of_boot_data() -> u64 {
    /// The start info, its command line and its memory map take at most this many bytes.
    const START_INFO: u64 = 1 << 20;
    (layout::image().data.1 - KERNEL_BASE).next_multiple_of(PAGE) + START_INFO
}

/// Returns the RAM that the kernel may use: all above the first MiB, except the image.
///
/// It includes the start info, its command line and its memory map.
pub fn free(ram: &[Bounds]) -> ArrayVec<Bounds, 160> {
    let image = layout::image();
    let image = (image.text.0 - KERNEL_BASE, image.data.1 - KERNEL_BASE);
    let mut free = ArrayVec::new();
    for &(start, end) in ram {
        for (start, end) in [(start, end.min(image.0)), (start.max(image.1), end)] {
            let start = start.max(LOW_MEMORY);
            if start < end && !free.is_full() {
                free.push((start, end));
            }
        }
    }
    free
}
