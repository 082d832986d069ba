//! `HYPERVISOR_memory_op` (`public/memory.h`).

use crate::abi::memory::{
    AddToPhysmap, MachphysMapping, MemoryExchange, MemoryMap, MemoryReservation,
};
use crate::{AddressBits, DomId};

/// The number of [`MemoryOp::Exchange`].
pub(crate) const XENMEM_EXCHANGE: u64 = 11;

/// A sub-operation of `memory_op` with its argument.
///
/// The lists of the first four are raw pointers inside the argument;
/// [`Xen::memory_op`](crate::Xen::memory_op) says what must hold for them.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryOp<'a> {
    /// Exchanges extents of the caller for other ones. Returns 0; `nr_exchanged` says how many
    /// in-extents were exchanged.
    Exchange(&'a mut MemoryExchange),
    /// Returns extents to Xen. Returns the number of extents that Xen took.
    DecreaseReservation(&'a mut MemoryReservation),
    /// Obtains extents from Xen, at no place in the guest. Returns the number of extents that came.
    IncreaseReservation(&'a mut MemoryReservation),
    /// Obtains extents from Xen at given guest frames. Returns the number of extents that came.
    PopulatePhysmap(&'a mut MemoryReservation),
    /// Returns the number of frames that the domain has.
    CurrentReservation(DomId),
    /// Returns the number of frames that the domain may have.
    MaximumReservation(DomId),
    /// Returns the first machine frame number past RAM: `max_page` in Xen's `common/memory.c`. The
    /// public header calls it the maximum machine frame number.
    MaximumRamPage,
    /// Reports where the machine-to-physical table lies.
    MachphysMapping(&'a mut MachphysMapping),
    /// Reports the guest's memory map in E820 format.
    MemoryMap(&'a mut MemoryMap),
    /// Maps a page of Xen's at a frame of a translated guest. The memory that was there returns to
    /// Xen.
    AddToPhysmap(&'a AddToPhysmap),
}

impl MemoryOp<'_> {
    /// Returns the number of the sub-operation, `XENMEM_*`.
    pub const fn number(&self) -> u32 {
        self.command().0
    }

    /// The number and the name, as in the header.
    pub(crate) const fn command(&self) -> (u32, &'static str) {
        match self {
            Self::IncreaseReservation(_) => (0, "increase_reservation"),
            Self::DecreaseReservation(_) => (1, "decrease_reservation"),
            Self::MaximumRamPage => (2, "maximum_ram_page"),
            Self::CurrentReservation(_) => (3, "current_reservation"),
            Self::MaximumReservation(_) => (4, "maximum_reservation"),
            Self::PopulatePhysmap(_) => (6, "populate_physmap"),
            Self::AddToPhysmap(_) => (7, "add_to_physmap"),
            Self::MemoryMap(_) => (9, "memory_map"),
            Self::Exchange(_) => (XENMEM_EXCHANGE as u32, "exchange"),
            Self::MachphysMapping(_) => (12, "machphys_mapping"),
        }
    }
}

/// `XENMEMF_*`: which memory Xen should choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemFlags(u32);

impl MemFlags {
    /// Makes flags for memory whose every byte lies below the limit (`XENMEMF_address_bits`).
    pub const fn address_bits(bits: AddressBits) -> Self {
        Self(bits.get())
    }

    /// Adds a preference for a NUMA node (`XENMEMF_node`).
    #[must_use]
    pub const fn near_node(self, node: u8) -> Self {
        // The field holds the node plus one, and 0 stands for any node. Node 255 does not fit and
        // becomes 0.
        Self(self.0 & !0xff00 | ((node as u32 + 1) & 0xff) << 8)
    }

    /// Adds a NUMA node that all the memory must come from (`XENMEMF_exact_node`).
    #[must_use]
    pub const fn exactly_node(self, node: u8) -> Self {
        Self(self.near_node(node).0 | 1 << 17)
    }

    /// Returns the field as Xen takes it.
    pub const fn raw(self) -> u32 {
        self.0
    }
}
