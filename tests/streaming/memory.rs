//! Memory that a driver maps, of every kind.

use std::ptr::NonNull;

use xen_contig::addr::Pfn;
use xen_contig::dma::{CoherentBuffer, Constraints};
use xen_contig::frames::FrameRun;
use xen_contig::paging::GuestMemory;
use xen_contig::platform::Platform;
use xen_contig::vmap::{Area, Protection};

use crate::random::Random;
use crate::scene::{Kernel, PAGE, StreamingScene};

/// Memory that is contiguous for the processor. What owns it is kept as long.
pub struct DriverMemory {
    start: *mut u8,
    pub pages: u64,
    _owner: Owner,
}

#[expect(dead_code, reason = "they are kept, not read")]
enum Owner {
    Heap(Vec<Page>),
    Frames(FrameRun),
    Buffer(CoherentBuffer<'static, Kernel>),
    Area(Area, FrameRun),
}

#[derive(Clone)]
#[repr(align(4096))]
#[expect(dead_code, reason = "it is accessed by pointers")]
struct Page([u8; PAGE as usize]);

impl DriverMemory {
    /// Returns free frames of the guest, which are scattered over the machine.
    pub fn scattered(scene: &StreamingScene, pages: u64) -> Self {
        let run = scene.platform.take(pages, 1).unwrap();
        let start = scene.guest().pointer(run.first());
        Self { start, pages, _owner: Owner::Frames(run) }
    }

    /// Returns frames that are contiguous for devices.
    pub fn contiguous(scene: &StreamingScene, pages: u64, limits: &Constraints) -> Self {
        let buffer = scene.allocator.alloc_coherent(pages * PAGE, limits).unwrap();
        let start = buffer.as_ptr().as_ptr();
        Self { start, pages, _owner: Owner::Buffer(buffer) }
    }

    /// Returns memory that the guest does not have in its linear mapping.
    pub fn heap(pages: u64) -> Self {
        let mut heap = vec![Page([0; PAGE as usize]); pages as usize];
        let start = heap.as_mut_ptr().cast();
        Self { start, pages, _owner: Owner::Heap(heap) }
    }

    /// Returns frames of a PV guest by a virtual area.
    pub fn area(scene: &StreamingScene, pages: u64) -> Self {
        let run = scene.platform.take(pages, 1).unwrap();
        let frames: Vec<_> = run.iter().collect();
        let area = scene.guest().vmap(frames, Protection::ReadWrite, "driver").unwrap();
        let start = area.pointer().cast();
        Self { start, pages, _owner: Owner::Area(area, run) }
    }

    /// Returns true if it is frames of the guest.
    pub const fn holds_frames(&self) -> bool {
        !matches!(self._owner, Owner::Heap(_))
    }

    /// Returns the first of its frames of the guest.
    pub fn first_frame(&self, scene: &StreamingScene) -> Pfn {
        let first = self.start.addr() - scene.guest().pointer(Pfn::new(0)).addr();
        Pfn::new(first as u64 / PAGE)
    }

    /// Returns the range of `len` bytes from `offset` on.
    pub fn range(&self, offset: u64, len: u64) -> NonNull<[u8]> {
        assert!(offset + len <= self.pages * PAGE);
        let start = NonNull::new(self.start.wrapping_add(offset as usize)).unwrap();
        NonNull::slice_from_raw_parts(start, len as usize)
    }
}

/// Copies the bytes of ranges out of the driver's memory.
pub fn load(list: &[NonNull<[u8]>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in list {
        let at = bytes.len();
        bytes.resize(at + range.len(), 0);
        // SAFETY: the range is memory of the test, which nothing else accesses meanwhile.
        unsafe {
            bytes.as_mut_ptr().add(at).copy_from_nonoverlapping(range.as_ptr().cast(), range.len())
        };
    }
    bytes
}

/// Copies bytes to the driver's memory, from byte `at` of the list on.
pub fn store(list: &[NonNull<[u8]>], at: u64, bytes: &[u8]) {
    let (mut before, mut done) = (at as usize, 0);
    for range in list {
        let skipped = before.min(range.len());
        before -= skipped;
        let len = (range.len() - skipped).min(bytes.len() - done);
        // SAFETY: the range is memory of the test, which nothing else accesses meanwhile.
        unsafe {
            let to = range.as_ptr().cast::<u8>().add(skipped);
            to.copy_from_nonoverlapping(bytes.as_ptr().add(done), len);
        }
        done += len;
    }
    assert_eq!(done, bytes.len());
}

/// Returns random bytes.
pub fn noise(random: &mut Random, len: u64) -> Vec<u8> {
    let start = random.below(1 << 40);
    (start..start + len).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
