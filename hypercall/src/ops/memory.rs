//! `HYPERVISOR_memory_op` (`public/memory.h`).

use crate::abi::memory::{
    AddToPhysmap, MachphysMapping, MemoryExchange, MemoryMap, MemoryReservation,
};
use crate::{AddressBits, DomId};

/// A sub-operation of `memory_op` with its argument.
///
/// The ones with lists hold raw pointers inside: whoever issues them answers for those, see
/// [`Xen::memory_op`](crate::Xen::memory_op).
#[derive(Debug)]
pub enum MemoryOp<'a> {
    /// Swap extents of the caller for other ones. Answers 0; the progress is in `nr_exchanged`.
    Exchange(&'a mut MemoryExchange),
    /// Give extents back to Xen. Answers how many went.
    DecreaseReservation(&'a mut MemoryReservation),
    /// Get extents from Xen, wherever they are. Answers how many came.
    IncreaseReservation(&'a mut MemoryReservation),
    /// Get extents from Xen at given places in the guest. Answers how many came.
    PopulatePhysmap(&'a mut MemoryReservation),
    /// Answers how many frames the domain has.
    CurrentReservation(DomId),
    /// Answers how many frames the domain may have.
    MaximumReservation(DomId),
    /// Answers the first machine frame number behind RAM: `max_page` in Xen's `common/memory.c`, which
    /// the public header calls the maximum machine frame number.
    MaximumRamPage,
    /// Where the machine-to-physical table is.
    MachphysMapping(&'a mut MachphysMapping),
    /// The guest's memory map, E820 format.
    MemoryMap(&'a mut MemoryMap),
    /// Puts a page of Xen's at a frame of a translated guest; what is there goes back to Xen.
    AddToPhysmap(&'a AddToPhysmap),
}

/// `XENMEMF_*`: how Xen shall choose the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemFlags(u32);

impl MemFlags {
    /// Every byte below the limit (`XENMEMF_address_bits`).
    pub const fn address_bits(bits: AddressBits) -> Self {
        Self(bits.get())
    }

    /// From that NUMA node if possible (`XENMEMF_node`).
    #[must_use]
    pub const fn near_node(self, node: u8) -> Self {
        // Node 255 has no room in the field: 0 stands for any node, so Xen adds one.
        Self(self.0 & !0xff00 | ((node as u32 + 1) & 0xff) << 8)
    }

    /// From that NUMA node or not at all (`XENMEMF_exact_node`).
    #[must_use]
    pub const fn exactly_node(self, node: u8) -> Self {
        Self(self.near_node(node).0 | 1 << 17)
    }

    /// The field as Xen takes it.
    pub const fn raw(self) -> u32 {
        self.0
    }
}
