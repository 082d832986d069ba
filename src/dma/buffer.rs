//! Memory that a device reads and writes.

use core::fmt;
use core::ptr::NonNull;

use super::counters::Source;
use super::device::live::{BufferKind, LiveClaim, LiveEntry, LiveGuard};
use super::moved::DeviceRange;
use super::plan::Plan;
use super::reserve::{Extent, Origin};
use super::segments::{CutRules, Piece, Segment, Segments};
use super::span::BufferSpan;
use super::{Allocator, BufferError, Moved};
use crate::addr::{DmaAddr, Gfn, PAGE_SIZE, Pfn, PseudoPhysAddr};
use crate::frames::FrameRun;
use crate::paging::GuestMemory;
use crate::platform::Platform;
use crate::word::Word;

const PAGE: u64 = PAGE_SIZE as u64;

/// A coherent buffer: contiguous for the processor, and one segment or more for the device.
///
/// The device may write at any time, so the memory is never a reference ([M5](crate::rules#M5)): it
/// is read and written by [`load`](Self::load) and [`store`](Self::store), or through
/// [`as_ptr`](Self::as_ptr) with volatile accesses. A [`Device`](super::Device) makes it.
///
/// Dropping the buffer returns it to the allocator's reserve: stop the device first. The drop makes no
/// hypercall and takes the lock of the reserve alone. Forgetting the buffer leaks the memory and is safe.
///
/// No method sleeps or makes a hypercall. If the buffer has one piece, none takes a lock but the drop. If
/// it has several, [`segments`](Self::segments), [`dma_addr_at`](Self::dma_addr_at),
/// [`check_in_place`](Self::check_in_place) and [`split_off`](Self::split_off) take the lock of the reserve
/// for a moment per piece. An interrupt handler may call the first three and drop buffers if that lock masks
/// interrupts. It may call all other methods but `split_off`.
pub struct CoherentBuffer<'a, P: Platform> {
    allocator: &'a Allocator<P>,
    /// Empty only while it is taken apart.
    run: FrameRun,
    len: u64,
    /// The number by which devices see the first frame.
    first: Gfn,
    /// Where the memory is from if it is one piece. The reserve has the records of several.
    origin: Option<Origin>,
    rules: CutRules,
    source: Source,
    /// The record of the buffer, if a device made it.
    record: Option<LiveGuard<'a, P>>,
}

impl<P: Platform> fmt::Debug for CoherentBuffer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoherentBuffer({} bytes at {})", self.len, self.dma_addr())
    }
}

impl<'a, P: Platform> CoherentBuffer<'a, P> {
    /// Returns a buffer of one piece.
    pub(super) const fn of_extent(
        allocator: &'a Allocator<P>,
        run: FrameRun,
        extent: &Extent,
        plan: &Plan,
    ) -> Self {
        let (first, origin) = (extent.gfn, Some(extent.origin));
        let rules = CutRules::new(plan.limits());
        let (len, source) = (plan.size(), Source::Reserve);
        Self { allocator, run, len, first, origin, rules, source, record: None }
    }

    /// Returns a buffer of several pieces, which the reserve has recorded.
    pub(super) fn of_pieces(allocator: &'a Allocator<P>, run: FrameRun, plan: &Plan) -> Self {
        let memory = allocator.platform().memory();
        let piece = allocator.reserve.with(|blocks| blocks.piece(memory, run.first()));
        let first = piece.map_or(Gfn::new(0), |piece| piece.gfn);
        let rules = CutRules::new(plan.limits());
        let (len, source) = (plan.size(), Source::Reserve);
        Self { allocator, run, len, first, origin: None, rules, source, record: None }
    }

    /// Notes where the memory came from.
    pub(super) fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Returns where the memory came from.
    pub(super) const fn source(&self) -> Source {
        self.source
    }

    /// Records the buffer of a device.
    pub(super) fn recorded(mut self, claim: LiveClaim<'a, P>, tag: &'static str) -> Self {
        self.record = Some(claim.keep(&self.live_entry(tag, BufferKind::Coherent)));
        self
    }

    /// Gives the buffer up to its record, where it is found by its two addresses.
    pub(super) fn into_raw(mut self) -> (DmaAddr, NonNull<u8>) {
        let (dma, cpu) = (self.dma_addr(), self.as_ptr());
        if let Some(record) = self.record.take() {
            let (entry, cpu) = (record.entry(), cpu.addr().get() as u64);
            record.release(&LiveEntry { kind: BufferKind::Raw, cpu, ..entry });
        }
        core::mem::forget(self);
        (dma, cpu)
    }

    /// Gives a bounce buffer up to a record. `len` bytes at `dma` replace the driver's bytes at `cpu`, and
    /// these two addresses name them.
    pub(super) fn into_bounce(self, claim: LiveClaim<'a, P>, dma: DmaAddr, len: u64, cpu: u64) {
        let entry = self.live_entry("bounce", BufferKind::Bounce);
        let at = entry.range.at.checked_add(dma.get() - entry.range.dma.get());
        let Some(at) = at else { unreachable!("the buffer lies in the address space") };
        claim.keep(&LiveEntry { range: DeviceRange { at, dma, len }, cpu, ..entry }).forget();
        core::mem::forget(self);
    }

    fn live_entry(&self, tag: &'static str, kind: BufferKind) -> LiveEntry {
        let range = DeviceRange {
            at: PseudoPhysAddr::of(self.run.first()),
            dma: self.dma_addr(),
            len: self.len,
        };
        LiveEntry { tag, kind, range, cpu: 0, origin: self.origin }
    }

    /// Takes the buffer apart: returns its run, and the extent that backs it if it is one piece. The
    /// records of several pieces stay in the reserve.
    pub(super) fn into_parts(mut self) -> (FrameRun, Option<Extent>) {
        let extent = self.origin.and_then(|_| self.extent_at(self.run.first()));
        (self.take_run(), extent)
    }

    /// Takes the run, after which the drop releases nothing.
    const fn take_run(&mut self) -> FrameRun {
        core::mem::replace(&mut self.run, FrameRun::EMPTY)
    }

    /// Returns the number of bytes, as asked for.
    #[expect(clippy::len_without_is_empty, reason = "no buffer is empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns the first byte for the processor.
    ///
    /// It is valid as long as the buffer lives. The device may write at any time, so access it volatile
    /// and make no reference of it ([M5](crate::rules#M5)).
    ///
    /// # Panics
    /// If the embedder maps guest memory at address 0.
    pub fn as_ptr(&self) -> NonNull<u8> {
        let pointer = self.allocator.platform().memory().pointer(self.run.first());
        NonNull::new(pointer).expect("the linear mapping does not map page 0")
    }

    /// Returns the guest frames of the buffer.
    pub const fn frames(&self) -> &FrameRun {
        &self.run
    }

    /// Iterates over what the device sees, first to last.
    ///
    /// Nothing is stored: each segment is computed when it is requested.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        Segments::new(self.pieces(), self.len, self.rules)
    }

    /// Iterates over the machine-contiguous pieces of the buffer.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        self.extents().map(|Extent { gfn, frames, .. }| Piece::of_frames(gfn, frames))
    }

    fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let run = &self.run;
        let (mut at, end) = (run.first(), run.first().add(run.frames()));
        core::iter::from_fn(move || {
            let extent = (at < end).then(|| self.extent_at(at)).flatten()?;
            at = at.add(extent.frames);
            Some(extent)
        })
    }

    /// Returns the extent that begins at a frame.
    fn extent_at(&self, pfn: Pfn) -> Option<Extent> {
        match self.origin {
            Some(origin) => {
                Some(Extent { pfn, gfn: self.first, frames: self.run.frames(), origin })
            }
            None => {
                let memory = self.allocator.platform().memory();
                self.allocator.reserve.with(|blocks| blocks.piece(memory, pfn))
            }
        }
    }

    /// Returns what goes into a device register for the first byte.
    pub const fn dma_addr(&self) -> DmaAddr {
        DmaAddr::of(self.first)
    }

    /// Returns what goes into a device register for the byte at `offset`; `None` past the end.
    pub fn dma_addr_at(&self, offset: u64) -> Option<DmaAddr> {
        let holds =
            |segment: &Segment| (segment.offset..segment.offset + segment.len).contains(&offset);
        let segment = self.segments().find(holds)?;
        segment.dma.checked_add(offset - segment.offset)
    }

    /// Checks that every page still has the address that the device received. For a kernel that was
    /// saved and restored or migrated, once its P2M is up to date again.
    ///
    /// # Errors
    /// [`BufferError::Moved`]: the first page that is not.
    pub fn check_in_place(&self) -> Result<(), BufferError> {
        let p2m = self.allocator.platform().p2m();
        self.device_ranges().try_for_each(|(offset, range)| {
            range
                .check_in_place(p2m)
                .map_err(|moved| Moved { offset: offset + moved.offset, ..moved })
                .map_err(BufferError::Moved)
        })
    }

    /// Iterates over the pieces by their offsets in the buffer, with the address that the device received.
    fn device_ranges(&self) -> impl Iterator<Item = (u64, DeviceRange)> + '_ {
        let first = self.run.first().number();
        self.extents().map(move |Extent { pfn, gfn, frames, .. }| {
            let offset = (pfn.number() - first) * PAGE;
            let len = (frames * PAGE).min(self.len - offset);
            (offset, DeviceRange { at: PseudoPhysAddr::of(pfn), dma: DmaAddr::of(gfn), len })
        })
    }

    pub(super) fn memory(&self) -> &P::Memory {
        self.allocator.platform().memory()
    }

    pub(super) fn span(&self) -> BufferSpan {
        // SAFETY: the buffer's frames are mapped and its own ([M1](crate::rules#M1)) until it is
        // dropped.
        unsafe { BufferSpan::new(PseudoPhysAddr::of(self.run.first()), self.len) }
    }

    /// Reads a word, once.
    ///
    /// # Errors
    /// If the word is not within the buffer, or `offset` is not a multiple of its size.
    pub fn load<T: Word>(&self, offset: u64) -> Result<T, BufferError> {
        self.span().load(self.allocator.platform().memory(), offset)
    }

    /// Writes a word, once.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn store<T: Word>(&mut self, offset: u64, value: T) -> Result<(), BufferError> {
        self.span().store(self.allocator.platform().memory(), offset, value)
    }

    /// Copies bytes out of the buffer.
    ///
    /// # Errors
    /// If they are not all within the buffer. Then none was copied.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BufferError> {
        self.span().read(self.allocator.platform().memory(), offset, into)
    }

    /// Copies bytes into the buffer.
    ///
    /// # Errors
    /// If they do not all fit. Then none was copied.
    pub fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), BufferError> {
        self.span().write(self.allocator.platform().memory(), offset, from)
    }

    /// Splits the buffer at a page boundary. The buffer keeps the first `at` bytes, the rest is
    /// returned. Each part is released on its own.
    ///
    /// The rest begins within a piece, so its address may not have the device's alignment. If a
    /// [`Device`](super::Device) made the buffer, each part has a record with the same tag. A frame of the
    /// kernel is taken if all records are in use, so call this where the kernel's frame allocator may be
    /// called.
    ///
    /// # Errors
    /// The buffer then stays whole.
    /// * [`BufferError::NoPageBoundary`]: `at` is not a multiple of the page size within the buffer.
    /// * [`BufferError::NoRecordMemory`]: the kernel has no free frame for another record.
    pub fn split_off(&mut self, at: u64) -> Result<Self, BufferError> {
        if !at.is_multiple_of(PAGE) || at == 0 || at >= self.len {
            return Err(BufferError::NoPageBoundary { at, len: self.len });
        }
        let record = self.record.as_ref().map(LiveGuard::claim_another).transpose();
        let claim = record.map_err(|_| BufferError::NoRecordMemory)?;
        let edge = self.run.first().add(at / PAGE);
        let gfn = match self.origin {
            Some(_) => self.first.add(at / PAGE),
            None => self.split_piece(edge),
        };
        let (left, right) = self.take_run().split_at(at / PAGE);
        let mut rest = Self {
            allocator: self.allocator,
            run: right,
            len: self.len - at,
            first: gfn,
            origin: self.origin,
            rules: self.rules.aligned_for(DmaAddr::of(gfn)),
            source: self.source,
            record: None,
        };
        self.run = left;
        self.len = at;
        if let Some((claim, record)) = claim.zip(self.record.as_ref()) {
            let tag = record.entry().tag;
            record.change(&self.live_entry(tag, BufferKind::Coherent));
            rest = rest.recorded(claim, tag);
        }
        Ok(rest)
    }

    /// Cuts the recorded piece that contains `edge` in two there. Returns the number by which devices see
    /// that frame.
    fn split_piece(&self, edge: Pfn) -> Gfn {
        let memory = self.allocator.platform().memory();
        let holds = |piece: &Extent| (piece.pfn..piece.pfn.add(piece.frames)).contains(&edge);
        let Some(piece) = self.extents().find(holds) else {
            unreachable!("pieces cover the buffer");
        };
        let before = edge.number() - piece.pfn.number();
        let gfn = piece.gfn.add(before);
        if before > 0 {
            let after = Extent { pfn: edge, gfn, frames: piece.frames - before, ..piece };
            self.allocator.reserve.with(|blocks| {
                blocks.set_piece(memory, Extent { frames: before, ..piece });
                blocks.set_piece(memory, after);
            });
        }
        gfn
    }
}

impl<P: Platform> Drop for CoherentBuffer<'_, P> {
    fn drop(&mut self) {
        // Before the memory, which another vCPU can get and record at once.
        self.record = None;
        let (pfn, frames) = (self.run.first(), self.run.frames());
        if frames == 0 {
            return;
        }
        match self.origin {
            Some(origin) => {
                self.allocator.release(Extent { pfn, gfn: self.first, frames, origin });
            }
            None => self.allocator.release_pieces(pfn, frames),
        }
    }
}
