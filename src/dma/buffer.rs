//! Memory that a device reads and writes.

use core::fmt;
use core::ptr::NonNull;

use arrayvec::ArrayVec;

use super::moved::Told;
use super::span::BufferSpan;
use super::{Allocator, BufferError, MAX_SEGMENTS, Moved};
use crate::addr::{DmaAddr, PAGE_SIZE, PseudoPhysAddr};
use crate::frames::FrameRun;
use crate::paging::{GuestMemory, Width};
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A stretch of a buffer that is contiguous for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first byte, for the device.
    pub dma: DmaAddr,
    /// Its first byte in the buffer.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// A coherent buffer: contiguous for the processor, in one segment or a few for the device.
///
/// The device may write at any time, so the memory is never a reference ([M5](crate::rules#M5)): it
/// is read and written by [`load`](Self::load) and [`store`](Self::store), or through
/// [`as_ptr`](Self::as_ptr) with volatile accesses. Dropping the buffer gives it back by the
/// allocator's policy: stop the device first. Forgetting it leaks the memory and is safe.
pub struct CoherentBuffer<'a, P: Platform> {
    allocator: &'a Allocator<P>,
    /// `None` only while it is taken apart.
    run: Option<FrameRun>,
    len: u64,
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Whether the memory came from Xen, so that it can go back there.
    exchanged: bool,
}

impl<P: Platform> fmt::Debug for CoherentBuffer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoherentBuffer({} bytes, {:?})", self.len, self.segments.as_slice())
    }
}

impl<'a, P: Platform> CoherentBuffer<'a, P> {
    /// A buffer of `len` bytes in `run`, whose segments have the given lengths.
    ///
    /// # Panics
    /// If a frame of the run has nothing beneath it: the allocator has mapped them all.
    pub(super) fn new(
        allocator: &'a Allocator<P>,
        run: FrameRun,
        lengths: impl IntoIterator<Item = u64>,
        exchanged: bool,
    ) -> Self {
        let mut segments = ArrayVec::new();
        let mut offset = 0;
        for len in lengths {
            let pfn = run.first().add(offset / PAGE);
            let gfn = allocator.platform().p2m().gfn(pfn).expect("an attached frame is populated");
            segments.push(Segment { dma: DmaAddr::of(gfn), offset, len });
            offset += len;
        }
        Self { allocator, run: Some(run), len: offset, segments, exchanged }
    }

    fn run(&self) -> &FrameRun {
        self.run.as_ref().expect("a buffer has its run until it is taken apart")
    }

    /// How many bytes, as asked for.
    #[expect(clippy::len_without_is_empty, reason = "no buffer is empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The first byte, for the processor. Valid as long as the buffer lives; the device may write
    /// at any time, so access it volatile and make no reference of it ([M5](crate::rules#M5)).
    pub fn as_ptr(&self) -> NonNull<u8> {
        let pointer = self.allocator.platform().memory().pointer(self.run().first());
        NonNull::new(pointer).expect("the linear mapping does not map page 0")
    }

    /// The guest frames of the buffer.
    pub fn frames(&self) -> &FrameRun {
        self.run()
    }

    /// What the device sees, first to last.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What goes into a device register for the first byte.
    pub fn dma_addr(&self) -> DmaAddr {
        self.segments[0].dma
    }

    /// What goes into a device register for the byte at `offset`; `None` behind the end.
    pub fn dma_addr_at(&self, offset: u64) -> Option<DmaAddr> {
        let holds =
            |segment: &&Segment| (segment.offset..segment.offset + segment.len).contains(&offset);
        let segment = self.segments.iter().find(holds)?;
        segment.dma.checked_add(offset - segment.offset)
    }

    /// Checks that every page is still where the device was told. For a kernel that was saved and
    /// restored or migrated, once its P2M is up to date again.
    ///
    /// # Errors
    /// [`BufferError::Moved`]: the first page that is not.
    pub fn check_in_place(&self) -> Result<(), BufferError> {
        let p2m = self.allocator.platform().p2m();
        self.told().try_for_each(|(offset, told)| {
            told.check_in_place(p2m)
                .map_err(|moved| Moved { offset: offset + moved.offset, ..moved })
                .map_err(BufferError::Moved)
        })
    }

    /// Each segment by its place in the buffer, and what the device was told of it.
    fn told(&self) -> impl Iterator<Item = (u64, Told)> {
        self.segments.iter().map(|Segment { dma, offset, len }| {
            let at = PseudoPhysAddr::of(self.run().first().add(offset / PAGE));
            (*offset, Told { at, dma: *dma, len: *len })
        })
    }

    /// What the device was told of the first segment.
    #[cfg(any(feature = "virtio-drivers", feature = "dma-api"))]
    pub(crate) fn told_first(&self) -> Told {
        let at = PseudoPhysAddr::of(self.run().first());
        Told { at, dma: self.dma_addr(), len: self.segments[0].len }
    }

    fn span(&self) -> BufferSpan {
        // SAFETY: the buffer's frames are mapped and its own ([M1](crate::rules#M1)) until it is
        // dropped.
        unsafe { BufferSpan::new(PseudoPhysAddr::of(self.run().first()), self.len) }
    }

    /// Reads a word, once.
    ///
    /// # Errors
    /// If it is not within the buffer or `offset` is no multiple of its width.
    pub fn load(&self, offset: u64, width: Width) -> Result<u64, BufferError> {
        self.span().load(self.allocator.platform().memory(), offset, width)
    }

    /// Writes a word, once. What does not fit its width is cut off.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BufferError> {
        self.span().store(self.allocator.platform().memory(), offset, width, value)
    }

    /// Copies bytes out of the buffer.
    ///
    /// # Errors
    /// If they are not all within it; none was copied then.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        self.span().read(self.allocator.platform().memory(), offset, into)
    }

    /// Copies bytes into the buffer.
    ///
    /// # Errors
    /// If they do not all fit; none was copied then.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        self.span().write(self.allocator.platform().memory(), offset, from)
    }

    /// Splits the buffer at a page boundary. The buffer keeps the first `at` bytes, the rest is
    /// returned. Each part is given back on its own.
    ///
    /// # Errors
    /// [`BufferError::NoPageBoundary`] if `at` is not a multiple of the page size within the buffer,
    /// which stays whole.
    pub fn split_off(&mut self, at: u64) -> Result<Self, BufferError> {
        if !at.is_multiple_of(PAGE) || at == 0 || at >= self.len {
            return Err(BufferError::NoPageBoundary { at, len: self.len });
        }
        let Some((left, right)) = self.run.take().map(|run| run.split_at(at / PAGE)) else {
            unreachable!("only a drop takes the run");
        };
        let before = |segment: &Segment| {
            let len = at.saturating_sub(segment.offset).min(segment.len);
            (len > 0).then_some(Segment { len, ..*segment })
        };
        let behind = |segment: &Segment| {
            let skip = at.saturating_sub(segment.offset).min(segment.len);
            let dma = segment.dma.checked_add(skip)?;
            let offset = (segment.offset + skip).checked_sub(at)?;
            (skip < segment.len).then_some(Segment { dma, offset, len: segment.len - skip })
        };
        let rest = Self {
            allocator: self.allocator,
            run: Some(right),
            len: self.len - at,
            segments: self.segments.iter().filter_map(behind).collect(),
            exchanged: self.exchanged,
        };
        self.segments = self.segments.iter().filter_map(before).collect();
        self.run = Some(left);
        self.len = at;
        Ok(rest)
    }
}

impl<P: Platform> Drop for CoherentBuffer<'_, P> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.allocator.give_back(run, self.exchanged);
        }
    }
}
