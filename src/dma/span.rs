//! Accesses to a stretch of DMA memory: raw, once each, and never beyond it (M5).

use super::OutOfBounds;
use crate::addr::PseudoPhysAddr;
use crate::paging::{GuestMemory, Width};

/// A stretch of DMA memory, as the guest addresses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    at: PseudoPhysAddr,
    len: u64,
}

impl Span {
    /// The `len` bytes from `at` on.
    ///
    /// # Safety
    /// As long as the span is used they lie in populated, mapped frames that belong to its holder
    /// (M1).
    pub const unsafe fn new(at: PseudoPhysAddr, len: u64) -> Self {
        Self { at, len }
    }

    /// Where an access lies. Aligned is the address, not the offset: a span may begin anywhere.
    fn place(&self, offset: u64, bytes: u64, align: u64) -> Result<PseudoPhysAddr, OutOfBounds> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.len);
        let aligned = |at: &PseudoPhysAddr| at.get().is_multiple_of(align);
        let start = self.at.checked_add(offset).filter(aligned);
        match (end, start) {
            (Some(_), Some(start)) => Ok(start),
            _ => Err(OutOfBounds { offset, bytes, len: self.len }),
        }
    }

    pub fn load(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        width: Width,
    ) -> Result<u64, OutOfBounds> {
        let bytes = width.bytes() as u64;
        let at = self.place(offset, bytes, bytes)?;
        // SAFETY: within the span, whose frames are mapped and its holder's by `new`; aligned.
        Ok(unsafe { memory.load(at, width) })
    }

    pub fn store(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), OutOfBounds> {
        let bytes = width.bytes() as u64;
        let at = self.place(offset, bytes, bytes)?;
        // SAFETY: as in `load`.
        unsafe { memory.store(at, width, value) };
        Ok(())
    }

    pub fn read(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), OutOfBounds> {
        self.place(offset, into.len() as u64, 1)?;
        for (index, byte) in (offset..).zip(into) {
            *byte = self.load(memory, index, Width::Byte)? as u8;
        }
        Ok(())
    }

    pub fn write(
        &self,
        memory: &impl GuestMemory,
        offset: u64,
        from: &[u8],
    ) -> Result<(), OutOfBounds> {
        self.place(offset, from.len() as u64, 1)?;
        for (index, byte) in (offset..).zip(from) {
            self.store(memory, index, Width::Byte, (*byte).into())?;
        }
        Ok(())
    }
}
