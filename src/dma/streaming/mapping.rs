//! Memory of the guest that a device accesses for a while.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::compiler_fence;

use super::bounce::{Bounce, BounceMemory};
use super::layout::{BounceAddresses, BounceLayout};
use super::source::{Source, SourcePage};
use super::survey::{AddressDigest, Survey};
use super::view::{DeviceAddress, DeviceView};
use super::{Direction, MapError};
use crate::dma::device::MappingGuard;
use crate::dma::segments::{CutRules, Piece, Segments};
use crate::dma::{Allocator, BufferError, CoherentBuffer, Segment};
use crate::platform::Platform;

/// Memory of the guest that a device accesses until the mapping is dropped.
///
/// The device gets the [segments](Self::segments). Memory that it cannot access where it lies is
/// *bounced*: a copy lies where the device reaches it. [`sync_for_cpu`](Self::sync_for_cpu) and
/// [`sync_for_device`](Self::sync_for_device) hand the bytes over between processor and device, and copy
/// what is bounced. Dropping the mapping copies bounced bytes back if the device may have written them,
/// and releases the bounce memory: stop the device first. Forgetting the mapping leaks the bounce memory
/// and is safe.
///
/// ```
/// use core::ptr::NonNull;
/// use xen_contig::dma::{Device, Direction, MapError, Segment};
/// use xen_contig::platform::Platform;
///
/// /// Receives a packet. `start` gives a segment to the device, and `wait` waits for its interrupt.
/// ///
/// /// # Safety
/// /// The packet is valid until the function returns, and nothing else accesses it.
/// unsafe fn receive<P: Platform>(
///     nic: &Device<'_, P>,
///     packet: NonNull<[u8]>,
///     start: impl Fn(Segment),
///     wait: impl Fn(),
/// ) -> Result<(), MapError> {
///     // SAFETY: this function's contract. The mapping is dropped when the device has stopped.
///     let mapping = unsafe { nic.map(packet, Direction::FromDevice)? };
///     mapping.segments().for_each(start);
///     wait();
///     Ok(())
/// }
/// ```
///
/// # What is bounced
/// * A page that the device does not reach, or whose first byte lacks the [streaming alignment];
/// * a page outside of the linear mapping: its frame is unknown;
/// * in a mapping of more than 512 pages, also the neighbours of such a page: 513 to 1024 pages are bounced
///   in groups of 2, 1025 to 2048 pages in groups of 4, and so on;
/// * everything, if the device takes fewer segments than this needs.
///
/// Bytes keep their offset in the page, rounded down to the streaming alignment. If everything is bounced,
/// the first byte keeps its offset, unless the mapping is then too long for the device. The rest of a bounce
/// page contains zeros. The bounce memory starts as a copy in every direction, so bytes
/// that the device does not write stay as they were.
///
/// [streaming alignment]: crate::dma::ConstraintsBuilder::streaming_align
///
/// # Sleep and interrupts
/// No method sleeps or makes a hypercall, nor does the drop. The drop and the syncs take time in proportion
/// to the bounced bytes. If nothing is bounced, or if the bounce memory is an object of a pool, no method
/// takes a lock. Otherwise the drop takes the lock of the reserve, and [`segments`](Self::segments) and
/// [`check_in_place`](Self::check_in_place) take it if the bounce buffer has several pieces. An interrupt
/// handler may call them if that lock masks interrupts. It may call all other methods.
pub struct Mapping<'a, P: Platform> {
    platform: &'a P,
    source: Source<'a>,
    direction: Direction,
    len: u64,
    bounced_bytes: u64,
    rules: CutRules,
    bounce: Option<Bounce<'a, P>>,
    /// The digest of the addresses that the device accesses in place.
    digest: AddressDigest,
    /// Counts the mapping as live.
    _live: MappingGuard<'a>,
}

// SAFETY: the ranges of the source are valid on every thread that has the mapping: the contract of
// `Device::map`. Only `sync_for_cpu`, `sync_for_device` and the drop access them, all with the mapping
// to themselves. All else can be sent if the allocator can be shared.
unsafe impl<P: Platform> Send for Mapping<'_, P> where Allocator<P>: Sync {}
// SAFETY: the methods that take a shared mapping read no byte of the source.
unsafe impl<P: Platform> Sync for Mapping<'_, P> where Allocator<P>: Sync {}

/// What a mapping is made of.
pub struct MappingParts<'a, P: Platform> {
    pub source: Source<'a>,
    pub direction: Direction,
    pub rules: CutRules,
    pub bounce: Option<Bounce<'a, P>>,
    pub survey: Survey,
    pub live: MappingGuard<'a>,
}

impl<P: Platform> fmt::Debug for Mapping<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, direction, bounced_bytes, .. } = self;
        write!(f, "Mapping({len} bytes {direction:?}, {bounced_bytes} bounced)")
    }
}

impl<'a, P: Platform> Mapping<'a, P> {
    /// Makes a mapping, and copies what is bounced to the bounce memory, whatever the direction.
    ///
    /// # Safety
    /// As for [`Device::map`](crate::dma::Device::map), for each range of the source. The bounce memory and
    /// its layout are those of the source.
    pub(super) unsafe fn new(platform: &'a P, parts: MappingParts<'a, P>) -> Self {
        let MappingParts { source, direction, rules, bounce, survey, live } = parts;
        let (len, digest) = (survey.size.bytes, survey.digest);
        let bounced_bytes = match bounce.as_ref().map(|bounce| bounce.layout) {
            None => 0,
            Some(BounceLayout::ByPage { .. }) => survey.bounced_bytes,
            Some(BounceLayout::Dense { .. }) => len,
        };
        let mut mapping = Self {
            platform,
            source,
            direction,
            len,
            bounced_bytes,
            rules,
            bounce,
            digest,
            _live: live,
        };
        if let Some(Bounce { memory, layout }) = &mut mapping.bounce {
            // SAFETY: the ranges are valid for reads, and the layout puts them into the bounce memory in
            // order: this function's contract.
            unsafe { memory.fill(layout.bounced_parts(&mapping.source, 0..len)) };
        }
        // The device accesses the bytes by addresses that the compiler does not see.
        mapping.source.expose();
        compiler_fence(SeqCst);
        mapping
    }

    /// Takes the mapping apart. Returns its bounce buffer, if it has one; nothing is copied back, and the
    /// mapping stays live.
    pub(in crate::dma) fn into_bounce_buffer(mut self) -> Option<CoherentBuffer<'a, P>> {
        let bounce = self.bounce.take();
        core::mem::forget(self);
        match bounce?.memory {
            BounceMemory::Buffer(buffer) => Some(buffer),
            BounceMemory::Object(_) => None,
        }
    }

    /// Returns the number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "no mapping is empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if the device accesses all bytes where they lie.
    pub const fn is_direct(&self) -> bool {
        self.bounce.is_none()
    }

    /// Returns the number of bytes that are bounced.
    pub const fn bounced_bytes(&self) -> u64 {
        self.bounced_bytes
    }

    /// Iterates over what the device sees, first to last. [`Segment::offset`] counts from the first byte of
    /// the mapping.
    ///
    /// Nothing is stored: each segment is computed when it is requested.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        Segments::new(self.pieces(), self.len, self.rules)
    }

    /// Iterates over what is contiguous for the device.
    fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let dense = match &self.bounce {
            Some(Bounce { memory, layout: BounceLayout::Dense { first } }) => {
                Some(skip_bytes(memory.pieces(), *first))
            }
            _ => None,
        };
        let by_page = dense.is_none().then(|| self.pieces_by_page());
        dense.into_iter().flatten().chain(by_page.into_iter().flatten())
    }

    fn pieces_by_page(&self) -> impl Iterator<Item = Piece> + '_ {
        let view = DeviceView::new(self.platform);
        let memory = self.bounce.as_ref().map(|bounce| bounce.memory.pieces());
        let mut bounced = BounceAddresses::new(memory.into_iter().flatten());
        self.pages().map_while(move |(page, at)| {
            let address = match (at, view.find(&page)) {
                (Some(at), _) => bounced.of(at)?,
                (None, DeviceAddress::At(address)) => address,
                // Nothing backs the page any more, although its owner lent it.
                (None, _) => return None,
            };
            Some(Piece { address, bytes: page.len })
        })
    }

    /// Checks that all memory is still at the addresses that the device received. For a kernel that was
    /// saved and restored or migrated, once its P2M is up to date again.
    ///
    /// Takes time in proportion to the number of pages.
    ///
    /// # Errors
    /// [`MapError::Moved`]: stop the device, drop the mapping and map again. The bytes are intact.
    pub fn check_in_place(&self) -> Result<(), MapError> {
        if let Some(Bounce { memory, .. }) = &self.bounce
            && !memory.is_in_place()
        {
            return Err(MapError::Moved { bounce: Some(memory.dma_addr()) });
        }
        let view = DeviceView::new(self.platform);
        let mut digest = AddressDigest::default();
        for (page, _) in self.pages().filter(|(_, at)| at.is_none()) {
            if let DeviceAddress::At(address) = view.find(&page) {
                digest.add(address);
            }
        }
        let same = digest == self.digest || self.bounced_bytes == self.len;
        if same { Ok(()) } else { Err(MapError::Moved { bounce: None }) }
    }

    /// Hands bytes of the mapping to the processor. Call it when the device has written them, before the
    /// processor reads or writes them.
    ///
    /// Copies the bounced ones of them back if the device may write. `range` counts from the first byte of
    /// the mapping.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`] if the mapping does not have all of the bytes. Then none is copied.
    pub fn sync_for_cpu(&mut self, range: Range<u64>) -> Result<(), BufferError> {
        self.check_range(&range)?;
        compiler_fence(SeqCst);
        if self.direction.is_written() {
            self.copy_back(range);
        }
        Ok(())
    }

    /// Hands bytes of the mapping to the device. Call it when the processor has accessed them, before the
    /// device does.
    ///
    /// Copies the bounced ones of them to the bounce memory, whatever the direction: bytes that the
    /// device does not write then stay as the processor left them. `range` counts from the first byte of
    /// the mapping.
    ///
    /// # Errors
    /// [`BufferError::OutOfBounds`] if the mapping does not have all of the bytes. Then none is copied.
    pub fn sync_for_device(&mut self, range: Range<u64>) -> Result<(), BufferError> {
        self.check_range(&range)?;
        if let Some(Bounce { memory, layout }) = &mut self.bounce {
            // SAFETY: the contract of `new`, which holds until the drop. The layout puts the parts into the
            // bounce memory.
            unsafe { memory.copy_in(layout.bounced_parts(&self.source, range)) };
        }
        compiler_fence(SeqCst);
        Ok(())
    }

    fn check_range(&self, range: &Range<u64>) -> Result<(), BufferError> {
        let Range { start, end } = *range;
        let bytes = end.saturating_sub(start);
        match start <= end && end <= self.len {
            true => Ok(()),
            false => Err(BufferError::OutOfBounds { offset: start, bytes, len: self.len }),
        }
    }

    fn copy_back(&mut self, range: Range<u64>) {
        if let Some(Bounce { memory, layout }) = &mut self.bounce {
            // SAFETY: the contract of `new`, which holds until the drop: the direction lets the device
            // write, so the ranges are valid for writes. The layout puts the parts into the bounce memory.
            unsafe { memory.copy_out(layout.bounced_parts(&self.source, range)) };
        }
    }

    /// Iterates over the pages, each with its place in the bounce memory if it is bounced.
    fn pages(&self) -> impl Iterator<Item = (SourcePage, Option<u64>)> + '_ {
        let layout = self.bounce.as_ref().map_or(&BounceLayout::NONE, |bounce| &bounce.layout);
        layout.pages(&self.source)
    }
}

impl<P: Platform> Drop for Mapping<'_, P> {
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        if self.direction.is_written() {
            self.copy_back(0..self.len);
        }
    }
}

/// Leaves out the first bytes of pieces.
fn skip_bytes(pieces: impl Iterator<Item = Piece>, mut skip: u64) -> impl Iterator<Item = Piece> {
    pieces.map(move |Piece { address, bytes }| {
        let skipped = skip.min(bytes);
        skip -= skipped;
        Piece { address: address + skipped, bytes: bytes - skipped }
    })
}
