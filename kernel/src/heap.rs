//! The heap: the well-known linked list, behind a lock.
//!
//! It is a spin lock, held for a walk of the list and never across a hypercall. No handler of
//! events or faults allocates, so none waits for a lock that its own vCPU holds.

use linked_list_allocator::Heap;
use spin::Mutex;
use xen_contig::addr::PAGE_SIZE;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// Bytes of heap for a guest of that many frames: a 64th of its memory, 256 KiB to 4 MiB. Room for
/// text and for lists as long as the guest has runs; what is larger comes from the frame allocator.
pub fn bytes_for(frames: u64) -> usize {
    (frames as usize * PAGE_SIZE / 64).clamp(256 << 10, 4 << 20)
}

struct LockedHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` gives out disjoint pieces of the memory it was initialised with; the lock
// serialises it, between vCPUs, too, and no handler comes in between.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the pointer came from `alloc` with this layout, by the trait's contract.
            unsafe { self.0.lock().deallocate(pointer, layout) }
        }
    }
}

/// Starts the heap.
///
/// # Safety
/// The memory from `start` on is `bytes` long, mapped writable, and the heap's from now on. Called
/// once.
pub unsafe fn init(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { HEAP.0.lock().init(start, bytes) }
}
