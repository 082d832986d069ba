//! The heap: a linked list of free blocks, protected by a spin lock.
//!
//! The lock is held for a walk of the list and never across a hypercall. Handlers of events and
//! faults do not allocate, so a handler never waits for a lock that its own vCPU holds.

use linked_list_allocator::Heap;
use spin::Mutex;
use xen_contig::addr::PAGE_SIZE;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// Returns the size of the heap of a guest with `frames` frames, in bytes.
///
/// The heap is a 64th of the memory, between 256 KiB and 4 MiB. It holds text and lists of the
/// guest's runs. Larger memory comes from the frame allocator.
pub fn bytes_for(frames: u64) -> usize {
    (frames as usize * PAGE_SIZE / 64).clamp(256 << 10, 4 << 20)
}

struct LockedHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` hands out disjoint pieces of the memory that it was initialised with. The lock
// serialises all vCPUs, and handlers of events and faults do not allocate.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: by the contract of `GlobalAlloc` the pointer came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) }
        }
    }
}

/// Initialises the heap.
///
/// # Safety
/// The `bytes` bytes from `start` on are mapped writable, and only the heap uses them from now on.
/// The function is called once.
pub unsafe fn init(start: *mut u8, bytes: usize) {
    // SAFETY: by this function's contract the memory is mapped and only the heap uses it. The
    // function is called once, so the heap is not initialised yet.
    unsafe { HEAP.0.lock().init(start, bytes) }
}
