//! The DMA allocator, as the patterns call it. No other file of this module uses its interface.

use xen_contig::addr::{AddressBits, PAGE_SIZE};
use xen_contig::dma::{AllocError, Allocator, CoherentBuffer, Constraints, Retain};

use crate::machine::Machine;

/// A buffer.
pub type BenchBuffer<'a, 'm> = CoherentBuffer<'a, &'m Machine>;

/// A DMA allocator that serves a single entry.
pub struct BenchAllocator<'m> {
    allocator: Allocator<&'m Machine>,
    device: Constraints,
}

impl<'m> BenchAllocator<'m> {
    /// Returns an allocator with the default release policy, for a device with `bits` address bits.
    ///
    /// # Errors
    /// The allocator rejects the mask.
    pub fn with_default_policy(
        machine: &'m Machine,
        bits: AddressBits,
    ) -> Result<Self, AllocError> {
        Self::new(machine, Retain::default(), bits)
    }

    /// Returns an allocator that retains no idle memory.
    ///
    /// # Errors
    /// The allocator rejects the mask.
    pub fn retaining_nothing(machine: &'m Machine, bits: AddressBits) -> Result<Self, AllocError> {
        Self::new(machine, Retain::NOTHING, bits)
    }

    fn new(machine: &'m Machine, retain: Retain, bits: AddressBits) -> Result<Self, AllocError> {
        let mask = u64::MAX >> (u64::BITS - bits.get());
        let device = Constraints::builder().mask(mask).build()?;
        Ok(Self { allocator: Allocator::new(machine, retain), device })
    }

    /// Allocates a buffer of `pages` pages.
    ///
    /// # Errors
    /// No such memory is available.
    pub fn allocate(&self, pages: u64) -> Result<BenchBuffer<'_, 'm>, AllocError> {
        self.allocator.alloc_coherent(pages * PAGE_SIZE as u64, &self.device)
    }

    /// Makes the hypercalls that the release policy has postponed.
    pub fn trim(&self) {
        self.allocator.trim_excess();
    }

    /// Returns to Xen what it can of the memory that came from Xen, so that the next entry begins
    /// cold. All buffers must be free.
    pub fn end(self) {
        self.allocator.trim(u64::MAX);
    }

    /// Returns the number of buffers whose memory came from Xen.
    pub fn exchanged(&self) -> u64 {
        self.allocator.stats().exchanged
    }
}
