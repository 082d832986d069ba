//! Memory of drivers that they map by its address alone.

use core::ptr::NonNull;

use super::live::LiveEntry;
use super::raw::as_one_segment;
use super::{BufferKind, Device};
use crate::addr::DmaAddr;
use crate::dma::moved::DeviceRange;
use crate::dma::streaming::copy::copy_from_dma;
use crate::dma::{Constraints, Direction, MapError};
use crate::paging::GuestMemory;
use crate::platform::Platform;

/// Memory of a driver that a device accesses until it is unmapped by its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawMapping {
    /// The address of the first byte for the device.
    pub dma: DmaAddr,
    /// The first byte of the bounce buffer for the processor; `None` if the device accesses the memory in
    /// place.
    pub bounce: Option<NonNull<u8>>,
}

impl<P: Platform> Device<'_, P> {
    /// Maps `bytes` as one segment until they are unmapped by their address and the device's, in place or by
    /// a bounce buffer.
    ///
    /// For driver crates that have an interface of their own, and for C. The mapping is that of
    /// [`map`](Self::map), within `limits` too, but it has no owner. Its device address is never 0. A bounce
    /// buffer starts as a copy in every direction. Sleeps and makes hypercalls as [`map`](Self::map) does.
    ///
    /// # Safety
    /// As for [`map`](Self::map), until the mapping is [unmapped](Self::unmap_raw).
    ///
    /// # Errors
    /// * Those of [`map`](Self::map).
    /// * [`MapError::NoBounceMemory`] also if the two limits contradict each other, or if the bounce buffer
    ///   has no record.
    pub unsafe fn map_raw(
        &self,
        bytes: NonNull<[u8]>,
        direction: Direction,
        limits: &Constraints,
    ) -> Result<RawMapping, MapError> {
        let len = bytes.len() as u64;
        let mapper = as_one_segment(limits)
            .and_then(|limits| self.mapper().within(&limits))
            .map_err(|error| self.refused_mapping(error.into()))
            .map_err(|error| MapError::NoBounceMemory { bytes: len, error })?;
        let claim = || self.records.claim(mapper.limits().sleep());
        // SAFETY: the caller meets the requirements of the same method.
        let (mapping, dma, claim) = unsafe { mapper.map_raw(bytes, direction, claim)? };
        let Some(claim) = claim else {
            // It owns nothing, and stays live until it is unmapped.
            core::mem::forget(mapping);
            return Ok(RawMapping { dma, bounce: None });
        };
        let Some(buffer) = mapping.into_bounce_buffer() else {
            unreachable!("without a pool, the bounce memory is a buffer");
        };
        let first = (dma.get() - buffer.dma_addr().get()) as usize;
        // SAFETY: the segment lies in the buffer.
        let pointer = unsafe { buffer.as_ptr().add(first) };
        buffer.into_bounce(claim, dma, len, bytes.cast::<u8>().addr().get() as u64);
        Ok(RawMapping { dma, bounce: Some(pointer) })
    }

    /// Unmaps what [`map_raw`](Self::map_raw) mapped at this device address. Returns true if it was bounced.
    ///
    /// Copies the bounced bytes back if `copy_back` says that the device may have written them. Memory that
    /// was mapped in place has no record, so false also means that nothing was mapped. Stop the device first.
    /// Makes no hypercall, and takes the lock of the reserve alone. Call it once for each mapping, in place
    /// or not: it counts one live mapping less in the [report](Self::report).
    ///
    /// # Safety
    /// If `copy_back`, `bytes` is valid for writes, and nothing else accesses it during the call.
    pub unsafe fn unmap_raw(&self, dma: DmaAddr, bytes: NonNull<[u8]>, copy_back: bool) -> bool {
        self.counters.end_mapping();
        let Some(entry) = self.take_named(BufferKind::Bounce, dma, bytes.cast()) else {
            return false;
        };
        if copy_back {
            let DeviceRange { at, len, .. } = entry.range;
            let page = self.allocator().platform().memory().pointer(at.frame());
            // The caller may name fewer bytes than it mapped.
            let len = (len as usize).min(bytes.len());
            // SAFETY: this function requires that `bytes` is valid for writes. The record owned the bounce
            // buffer, which is mapped and at least `len` bytes long, until the buffer was taken out of the
            // record. It is released below ([M1](crate::rules#M1)). The caller does not own it, so the two
            // are apart.
            unsafe {
                copy_from_dma(page.add(at.offset()), bytes.cast::<u8>().as_ptr(), len);
            }
        }
        self.allocator().release_recorded(&entry);
        true
    }

    /// Takes a buffer of this kind with these two addresses out of its record.
    pub(super) fn take_named(
        &self,
        kind: BufferKind,
        dma: DmaAddr,
        cpu: NonNull<u8>,
    ) -> Option<LiveEntry> {
        let names = (kind, dma, cpu.addr().get() as u64);
        // Two records have the same addresses only after a restore, if a driver did not free the first. The
        // memory of the second is at its device address and that of the first is not.
        let in_place = |entry: &LiveEntry| self.find_moved(entry).is_none();
        self.records.take(names, in_place).or_else(|| self.records.take(names, |_| true))
    }
}
