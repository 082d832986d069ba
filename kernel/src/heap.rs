//! The heap: a linked list of free blocks, protected by a spin lock.
//!
//! The lock is held for a walk of the list and never across a hypercall. Handlers of events and
//! faults do not allocate, so a handler never waits for a lock that its own vCPU holds.
//!
//! What does not fit the heap comes from the frame allocator, in whole frames. So the size of the
//! heap limits nothing while the guest has free frames in a row.

use linked_list_allocator::Heap;
use spin::{Mutex, Once};
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::frames::{FrameAllocator, FrameRun};

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::layout::{LINEAR_BASE, linear};

/// Returns the size of the heap of a guest with `frames` frames, in bytes.
///
/// The heap is a 64th of the memory, between 256 KiB and 4 MiB. It holds text and lists of the
/// guest's runs.
pub fn bytes_for(frames: u64) -> usize {
    (frames as usize * PAGE_SIZE / 64).clamp(256 << 10, 4 << 20)
}

/// The frames for what does not fit the heap.
static FRAMES: Once<&'static Mutex<FrameAllocator<'static>>> = Once::new();

/// Takes what does not fit the heap from `frames`, from now on.
pub fn overflow_into(frames: &'static Mutex<FrameAllocator<'static>>) {
    FRAMES.call_once(|| frames);
}

/// Returns the frames that an allocation needs, and their alignment in frames.
fn in_frames(layout: Layout) -> (u64, u64) {
    let count = |bytes: usize| bytes.div_ceil(PAGE_SIZE) as u64;
    (count(layout.size()), count(layout.align()))
}

/// Allocates whole frames. Returns null if the guest has no such run of free frames.
fn allocate_frames(layout: Layout) -> *mut u8 {
    let (frames, align) = in_frames(layout);
    // The lock may be held by the code that allocates.
    let run = FRAMES.get().and_then(|all| all.try_lock()?.take(frames, align));
    run.map_or(ptr::null_mut(), |run| linear(run.first()).as_mut_ptr())
}

/// Frees what [`allocate_frames`] has returned for this layout.
///
/// # Safety
/// [`allocate_frames`] has returned `pointer` for `layout`, and nothing uses the memory.
unsafe fn free_frames(pointer: NonNull<u8>, layout: Layout) {
    let first = Pfn::new((pointer.as_ptr() as u64 - LINEAR_BASE) / PAGE_SIZE as u64);
    // SAFETY: by this function's contract the run was taken by `allocate_frames`, and nothing uses
    // its frames ([M1](xen_contig::rules#M1)).
    let run = unsafe { FrameRun::new(first, in_frames(layout).0) };
    if let Some(frames) = FRAMES.get()
        && let Err(error) = frames.lock().give(run)
    {
        panic!("freeing {layout:?}: {error}");
    }
}

struct LockedHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` hands out disjoint pieces of the memory that it was initialised with, and the frame
// allocator hands out each of its frames once. Neither has a frame of the other. Locks serialise all
// vCPUs, and handlers of events and faults do not allocate.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let allocated = self.0.lock().allocate_first_fit(layout);
        allocated.map_or_else(|()| allocate_frames(layout), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(pointer) = NonNull::new(pointer) else { return };
        let mut heap = self.0.lock();
        if (heap.bottom()..heap.top()).contains(&pointer.as_ptr()) {
            // SAFETY: by the contract of `GlobalAlloc` the pointer came from `alloc` with this
            // layout. It lies in the heap, so `allocate_first_fit` returned it.
            unsafe { heap.deallocate(pointer, layout) };
        } else {
            drop(heap);
            // SAFETY: by the contract of `GlobalAlloc` the pointer came from `alloc` with this
            // layout, and nothing uses the memory. It lies outside the heap, so `allocate_frames`
            // returned it.
            unsafe { free_frames(pointer, layout) };
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
