//! The device: what it can reach, and the memory that its driver has.

use core::fmt;

use super::counters::{DeviceCounters, FailureCause};
use super::live::LiveRecords;
use super::{DeviceName, LiveBuffer, StillInUse};
use crate::addr::PAGE_SIZE;
use crate::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Request};
use crate::p2m::P2m;
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A device, and the memory that its driver has.
///
/// It has a name and limits. [`alloc_coherent`](Self::alloc_coherent) allocates memory as bytes,
/// [`alloc_coherent_slice`](Self::alloc_coherent_slice) a ring of descriptors, and [`map`](Self::map) gives
/// the device memory that exists already. Every buffer is recorded while it lives, so that
/// [`report`](Self::report) says who holds what. A part of a device, such as a queue, is a
/// [`child`](Self::child) with narrower limits and a report of its own.
///
/// ```
/// use xen_contig::dma::{AllocError, Allocator, Constraints, Device, Request};
/// use xen_contig::platform::Platform;
///
/// fn probe<P: Platform>(allocator: &Allocator<P>) -> Result<(), AllocError> {
///     let limits = Constraints::builder().mask(u64::MAX >> 24).max_segments(16).build()?;
///     let nic = Device::new(allocator, "nic", &limits)?;
///     let queue = nic.child("queue-0", &Constraints::builder().align(128).build()?)?;
///     let ring = queue.alloc_coherent(Request::new(8192).tag("ring").max_segments(1))?;
///     assert!(ring.dma_addr().get().is_multiple_of(128));
///     Ok(())
/// }
/// ```
///
/// # Sleep and interrupts
/// | call | may sleep | interrupt handler |
/// |---|---|---|
/// | [`new`](Self::new), [`child`](Self::child) | no; takes a frame of the kernel | no |
/// | [`alloc_coherent`](Self::alloc_coherent), [`alloc_many`](Self::alloc_many) | as [`Allocator::alloc_coherent`] | with [`Sleep::MustNot`](crate::dma::Sleep::MustNot), if the lock of the reserve masks interrupts |
/// | [`alloc_coherent_box`](Self::alloc_coherent_box), [`alloc_coherent_slice`](Self::alloc_coherent_slice), [`alloc_raw`](Self::alloc_raw) | as `alloc_coherent` | as `alloc_coherent` |
/// | [`map`](Self::map), [`map_list`](Self::map_list), [`map_raw`](Self::map_raw) | in place no; for bounce memory as `alloc_coherent` | as `alloc_coherent`; in place always |
/// | the drop of a buffer | no | if the lock of the reserve masks interrupts |
/// | [`report`](Self::report) | no | yes |
/// | [`check_in_place`](Self::check_in_place), [`free_raw`](Self::free_raw) | no | if the lock of the reserve masks interrupts |
/// | [`close`](Self::close), the drop of a device | no; gives frames to the kernel | no |
///
/// # Records
/// The records of live buffers lie in frames of the kernel ([`Platform::take`]), about 50 in a frame. The
/// first frame is taken when the device is made. A request that may sleep takes another one if all records
/// are in use. The frames are returned when the device is dropped.
///
/// # Lifetimes
/// A buffer cannot outlive its device:
///
/// ```compile_fail,E0505
/// use xen_contig::dma::{AllocError, Device};
/// use xen_contig::platform::Platform;
///
/// fn keep<P: Platform>(nic: Device<'_, P>) -> Result<(), AllocError> {
///     let ring = nic.alloc_coherent(4096)?;
///     drop(nic);
///     ring.len();
///     Ok(())
/// }
/// ```
/// A buffer that was forgotten, or that a driver holds by its addresses, can. See
/// [`close`](Self::close).
pub struct Device<'a, P: Platform> {
    allocator: &'a Allocator<P>,
    name: DeviceName,
    limits: Constraints,
    pub(super) records: LiveRecords<'a, P>,
    pub(in crate::dma) counters: DeviceCounters,
}

impl<'a, P: Platform> Device<'a, P> {
    /// Returns a device with these limits. Takes one frame of the kernel for records.
    ///
    /// # Errors
    /// [`AllocError::NoRecordMemory`]: the kernel has no free frame.
    pub fn new(
        allocator: &'a Allocator<P>,
        name: &'static str,
        limits: &Constraints,
    ) -> Result<Self, AllocError> {
        Self::named(allocator, DeviceName::new(name), *limits)
    }

    fn named(
        allocator: &'a Allocator<P>,
        name: DeviceName,
        limits: Constraints,
    ) -> Result<Self, AllocError> {
        let records = LiveRecords::new(allocator.platform())?;
        Ok(Self { allocator, name, limits, records, counters: DeviceCounters::new() })
    }

    /// Returns a part of this device. Its limits are the stricter ones of this device and `limits`
    /// ([`Constraints::narrowed_by`]).
    ///
    /// Its report and its counters are its own. It can outlive this device.
    ///
    /// # Errors
    /// * [`AllocError::Constraints`]: the two limits contradict each other.
    /// * [`AllocError::NoRecordMemory`]: the kernel has no free frame for records.
    pub fn child(&self, name: &'static str, limits: &Constraints) -> Result<Self, AllocError> {
        let limits = self.limits.narrowed_by(limits)?;
        Self::named(self.allocator, self.name.child(name), limits)
    }

    /// Returns the name, with that of the parent.
    pub const fn name(&self) -> DeviceName {
        self.name
    }

    /// Returns what the device can reach.
    pub const fn limits(&self) -> &Constraints {
        &self.limits
    }

    /// Returns the allocator that serves the device.
    pub const fn allocator(&self) -> &'a Allocator<P> {
        self.allocator
    }

    /// Allocates a zeroed buffer within the limits of the device and of the request.
    ///
    /// A size alone is a request, too. Sleeps and makes hypercalls as [`Allocator::alloc_coherent`] does.
    ///
    /// # Errors
    /// * Those of [`Allocator::alloc_coherent`].
    /// * [`AllocError::Constraints`]: the request contradicts the device's limits.
    /// * [`AllocError::RecordsFull`]: all records are in use, and the caller must not sleep.
    /// * [`AllocError::NoRecordMemory`]: the kernel has no free frame for another record.
    pub fn alloc_coherent(
        &self,
        request: impl Into<Request>,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        self.counted(|| self.serve(&request.into()))
    }

    /// Allocates a chunk of a pool. Its limits are wider than the device's: the pool keeps its objects from
    /// crossing a boundary.
    pub(in crate::dma) fn alloc_chunk(
        &self,
        size: u64,
        limits: &Constraints,
        tag: &'static str,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        self.counted(|| self.serve_within(size, limits, tag))
    }

    /// Counts a request and its result.
    pub(super) fn counted<'d>(
        &self,
        serve: impl FnOnce() -> Result<CoherentBuffer<'d, P>, AllocError>,
    ) -> Result<CoherentBuffer<'d, P>, AllocError> {
        self.counters.count_request();
        let result = serve();
        match &result {
            Ok(buffer) => self.counters.count_served(buffer.source()),
            Err(error) => self.counters.count_failure(FailureCause::of(error)),
        }
        result
    }

    /// Counts a request that was refused at once.
    #[cfg(feature = "dma-api")]
    pub(crate) fn refused(&self, error: AllocError) -> AllocError {
        self.counters.count_request();
        self.refused_mapping(error)
    }

    /// Counts a mapping that was refused at once.
    pub(crate) fn refused_mapping(&self, error: AllocError) -> AllocError {
        self.counters.count_failure(FailureCause::of(&error));
        error
    }

    pub(super) fn serve(&self, request: &Request) -> Result<CoherentBuffer<'_, P>, AllocError> {
        let limits = self.limits.narrowed_by(&request.limits()?)?;
        self.serve_within(request.size(), &limits, request.tag_text())
    }

    fn serve_within(
        &self,
        size: u64,
        limits: &Constraints,
        tag: &'static str,
    ) -> Result<CoherentBuffer<'_, P>, AllocError> {
        // The record first, so that Xen exchanges no frames for a buffer that has none.
        let claim = self.records.claim(limits.sleep())?;
        let buffer = self.allocator.alloc_coherent(size, limits)?;
        Ok(buffer.recorded(claim, tag))
    }

    /// Allocates a set of buffers, all or none: a driver's rings and descriptors.
    ///
    /// A request that no memory can satisfy is refused before anything moves. If the reserve has to grow,
    /// it grows for the whole set. Otherwise as [`alloc_coherent`](Self::alloc_coherent).
    ///
    /// # Errors
    /// The index of the request that failed, and its error. The other buffers were released.
    pub fn alloc_many<const N: usize>(
        &self,
        requests: &[Request; N],
    ) -> Result<[CoherentBuffer<'_, P>; N], (usize, AllocError)> {
        requests.iter().for_each(|_| self.counters.count_request());
        let result = self.serve_many(requests);
        match &result {
            Ok(buffers) => {
                buffers.iter().for_each(|buffer| self.counters.count_served(buffer.source()));
            }
            Err((_, error)) => self.counters.count_failure(FailureCause::of(error)),
        }
        result
    }

    fn serve_many<const N: usize>(
        &self,
        requests: &[Request; N],
    ) -> Result<[CoherentBuffer<'_, P>; N], (usize, AllocError)> {
        let (mut narrowed, mut claims) = (*requests, [const { None }; N]);
        for (at, (request, claim)) in narrowed.iter_mut().zip(&mut claims).enumerate() {
            let limits = request.limits().and_then(|limits| self.limits.narrowed_by(&limits));
            let limits = limits.map_err(|error| (at, error.into()))?;
            *request = request.within(&limits);
            *claim = Some(self.records.claim(limits.sleep()).map_err(|error| (at, error))?);
        }
        let buffers = self.allocator.alloc_many(&narrowed)?;
        let mut records = claims.into_iter().zip(requests);
        Ok(buffers.map(|buffer| match records.next() {
            Some((Some(claim), request)) => buffer.recorded(claim, request.tag_text()),
            _ => unreachable!("each request has claimed a record"),
        }))
    }

    /// Returns the smallest mask `2^n - 1` that covers all memory that the guest has.
    ///
    /// A device with this mask or a larger one needs no exchange and no bounce buffer for the sake of its
    /// mask. Reads the whole P2M of a PV guest, in proportion to the guest's memory; does not sleep.
    pub fn required_mask(&self) -> u64 {
        required_mask(self.allocator.platform().p2m())
    }

    /// Returns the number of frames of the kernel that the records of live buffers lie in.
    pub fn record_frames(&self) -> u64 {
        self.records.frames()
    }

    /// Ends the device, and returns its records to the kernel.
    ///
    /// # Errors
    /// [`StillInUse`]: buffers and mappings that were forgotten, or that a driver holds by their addresses.
    /// The frames of the buffers are leaked, because the device may still write to them. The device is gone
    /// all the same.
    pub fn close(mut self) -> Result<(), StillInUse> {
        let mut in_use = StillInUse::new(self.name, self.counters.counts().live_mappings);
        self.leak(|buffer| in_use.add(buffer));
        // Nothing is live any more, so the drop finds nothing to report.
        self.records.forget_all();
        if in_use.is_empty() { Ok(()) } else { Err(in_use) }
    }

    /// Calls `visit` with each live buffer, and counts its frames as lost.
    fn leak(&self, mut visit: impl FnMut(&LiveBuffer)) {
        let accounts = self.allocator.platform().accounts();
        for (buffer, frames) in self.records.visit(|entry| (entry.buffer(), entry.frames())) {
            accounts.forget(frames);
            visit(&buffer);
        }
    }
}

impl<P: Platform> Drop for Device<'_, P> {
    /// Reports each live buffer by [`Platform::on_leaked_buffer`], and leaks its frames.
    fn drop(&mut self) {
        let platform = self.allocator.platform();
        self.leak(|buffer| platform.on_leaked_buffer(&self.name, buffer));
    }
}

impl<P: Platform> fmt::Debug for Device<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {} live buffers)", self.name, self.live())
    }
}

fn required_mask(p2m: &P2m<'_>) -> u64 {
    let frames = match p2m.is_translated() {
        true => p2m.frames(),
        false => {
            let gfns = (0..p2m.frames()).filter_map(|pfn| p2m.gfn(crate::addr::Pfn::new(pfn)));
            gfns.map(|gfn| gfn.number() + 1).max().unwrap_or(0)
        }
    };
    // Two pages are the least that a device reaches.
    let bytes = frames.max(2).saturating_mul(PAGE);
    u64::MAX >> (bytes - 1).leading_zeros()
}
