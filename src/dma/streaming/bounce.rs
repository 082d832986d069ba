//! Memory that stands in for memory that a device cannot access.

use super::copy::{copy_from_dma, copy_to_dma, zero_dma};
use super::layout::{BounceLayout, BouncedPart};
use crate::addr::{DmaAddr, PAGE_SIZE};
use crate::dma::segments::Piece;
use crate::dma::{CoherentBuffer, Pool, PoolObject};
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// A source of bounce memory that makes no hypercall: a [`Pool`].
pub trait BouncePool<P: Platform>: Sync {
    /// Returns the bytes of each object.
    fn bytes(&self) -> u64;

    /// Takes an object, if one is free.
    fn take(&self) -> Option<PoolObject<'_, P>>;
}

impl<P: Platform + Sync> BouncePool<P> for Pool<'_, P> {
    fn bytes(&self) -> u64 {
        self.config().size()
    }

    fn take(&self) -> Option<PoolObject<'_, P>> {
        self.alloc_atomic().ok()
    }
}

/// Bounce memory, and where the bytes of the mapping lie in it.
#[derive(Debug)]
pub struct Bounce<'a, P: Platform> {
    pub memory: BounceMemory<'a, P>,
    pub layout: BounceLayout,
}

/// The bounce memory of one mapping: whole pages, side by side for the processor.
#[derive(Debug)]
pub enum BounceMemory<'a, P: Platform> {
    Buffer(CoherentBuffer<'a, P>),
    Object(PoolObject<'a, P>),
}

impl<P: Platform> BounceMemory<'_, P> {
    /// Returns the first byte for the processor.
    fn pointer(&self) -> *mut u8 {
        match self {
            Self::Buffer(buffer) => buffer.as_ptr().as_ptr(),
            Self::Object(object) => object.as_ptr().as_ptr(),
        }
    }

    /// Returns the first byte for the device.
    pub const fn dma_addr(&self) -> DmaAddr {
        match self {
            Self::Buffer(buffer) => buffer.dma_addr(),
            Self::Object(object) => object.dma_addr(),
        }
    }

    /// Iterates over what is contiguous for the device, first to last. Takes the lock of the reserve for
    /// a moment per piece if a buffer has several.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let (buffer, object) = match self {
            Self::Buffer(buffer) => (Some(buffer.pieces()), None),
            Self::Object(object) => {
                (None, Some(Piece { address: object.dma_addr().get(), bytes: object.len() }))
            }
        };
        buffer.into_iter().flatten().chain(object)
    }

    /// Returns true if the memory is at the addresses that the device received.
    pub fn is_in_place(&self) -> bool {
        match self {
            Self::Buffer(buffer) => buffer.check_in_place().is_ok(),
            Self::Object(object) => object.check_in_place().is_ok(),
        }
    }

    /// Copies the parts to their places, first to last, and zeroes what lies between and around them in
    /// the same pages. So every byte of these pages is written.
    ///
    /// # Safety
    /// The parts are valid for reads, and their places lie in this memory, in order and apart.
    pub unsafe fn fill(&mut self, parts: impl Iterator<Item = BouncedPart>) {
        let (start, mut done) = (self.pointer(), 0);
        for part in parts {
            // SAFETY: the part is valid for reads, and its place and what lies before it lie in this memory:
            // this function's contract. `start` is valid for all of it ([M1](crate::rules#M1)). A part is
            // memory of the caller, so the two are apart.
            unsafe {
                zero_dma(start.add(done as usize), (part.at - done) as usize);
                copy_to_dma(part.pointer, start.add(part.at as usize), part.len as usize);
            }
            done = part.at + part.len;
        }
        let end = done.next_multiple_of(PAGE);
        // SAFETY: the memory has whole pages, and the last part ends in it: this function's contract.
        unsafe { zero_dma(start.add(done as usize), (end - done) as usize) };
    }

    /// Copies parts to their places.
    ///
    /// # Safety
    /// The parts are valid for reads, and their places lie in this memory.
    pub unsafe fn copy_in(&mut self, parts: impl Iterator<Item = BouncedPart>) {
        let start = self.pointer();
        for part in parts {
            // SAFETY: by this function's contract. A part is memory of the caller, so the two are apart.
            unsafe { copy_to_dma(part.pointer, start.add(part.at as usize), part.len as usize) };
        }
    }

    /// Copies parts back from their places.
    ///
    /// # Safety
    /// The parts are valid for writes, and their places lie in this memory.
    pub unsafe fn copy_out(&mut self, parts: impl Iterator<Item = BouncedPart>) {
        let start = self.pointer();
        for part in parts {
            // SAFETY: by this function's contract. A part is memory of the caller, so the two are apart.
            unsafe { copy_from_dma(start.add(part.at as usize), part.pointer, part.len as usize) };
        }
    }
}
