//! Accesses to a stretch of DMA memory: raw, once each, and never beyond it
//! ([M5](crate::rules#M5)).

use super::{BufferError, copy};
use crate::addr::PseudoPhysAddr;
use crate::paging::GuestMemory;
use crate::word::Word;

/// A stretch of DMA memory, as the guest addresses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BufferSpan {
    at: PseudoPhysAddr,
    len: u64,
}

impl BufferSpan {
    /// The `len` bytes from `at` on.
    ///
    /// # Safety
    /// As long as the span is used they lie in populated, mapped frames that belong to its holder
    /// ([M1](crate::rules#M1)).
    pub const unsafe fn new(at: PseudoPhysAddr, len: u64) -> Self {
        Self { at, len }
    }

    /// Returns where an access lies. Its address must be aligned, not its offset: a span may begin
    /// anywhere.
    pub fn place(
        &self,
        offset: u64,
        bytes: u64,
        align: u64,
    ) -> Result<PseudoPhysAddr, BufferError> {
        let out_of_bounds = BufferError::OutOfBounds { offset, bytes, len: self.len };
        offset.checked_add(bytes).filter(|end| *end <= self.len).ok_or(out_of_bounds)?;
        let start = self.at.checked_add(offset).ok_or(out_of_bounds)?;
        if !start.get().is_multiple_of(align) {
            return Err(BufferError::Misaligned { offset, width: align });
        }
        Ok(start)
    }

    pub fn load<T: Word>(&self, memory: &impl GuestMemory, offset: u64) -> Result<T, BufferError> {
        let bytes = size_of::<T>() as u64;
        let at = self.place(offset, bytes, bytes)?;
        // SAFETY: within the span, whose frames are mapped and its holder's by `new`; aligned.
        Ok(unsafe { memory.load(at) })
    }

    pub fn store<T: Word>(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        value: T,
    ) -> Result<(), BufferError> {
        let bytes = size_of::<T>() as u64;
        let at = self.place(offset, bytes, bytes)?;
        // SAFETY: as in `load`.
        unsafe { memory.store(at, value) };
        Ok(())
    }

    pub fn read(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), BufferError> {
        let at = self.place(offset, into.len() as u64, 1)?;
        // SAFETY: the bytes are within the span, whose frames are mapped and its holder's by `new`.
        unsafe { copy::read(memory, at, into) };
        Ok(())
    }

    pub fn write(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        from: &[u8],
    ) -> Result<(), BufferError> {
        let at = self.place(offset, from.len() as u64, 1)?;
        // SAFETY: as in `read`.
        unsafe { copy::write(memory, at, from) };
        Ok(())
    }

    /// Fills the span with zeros.
    pub fn zero(&self, memory: &impl GuestMemory) {
        // SAFETY: the bytes are the whole span, whose frames are mapped and its holder's by `new`.
        unsafe { copy::zero(memory, self.at, self.len as usize) };
    }
}
