//! The first-level page tables of the stretch of addresses.

use hypercall::{VirtAddr, Xen};

use crate::addr::{Gfn, MachineAddr, PAGE_SIZE, Pfn};
use crate::paging::FlushClock;
use crate::sync::AtomicU64;

/// Where the first-level entry of a page is.
///
/// An [`AreaTables`] makes it and a [`Vmap`](super::Vmap) writes through it. Other code cannot, because
/// a safe write to a page table would break [M4](crate::rules#M4):
///
/// ```compile_fail,E0616
/// use xen_contig::vmap::AreaTables;
///
/// fn overwrite(tables: &impl AreaTables) {
///     let _entry = tables.entry(0).0;
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AreaEntry<'a>(pub(super) EntryPlace<'a>);

/// The two places that an entry can be in.
#[derive(Clone, Copy, Debug)]
pub(super) enum EntryPlace<'a> {
    /// Xen writes the entry, validates it and counts references.
    Validated(MachineAddr),
    /// The entry is memory of the guest, which writes it.
    Plain(&'a AtomicU64),
}

impl<'a> AreaEntry<'a> {
    /// The entry of a PV guest at this machine address.
    pub const fn validated(entry: MachineAddr) -> Self {
        Self(EntryPlace::Validated(entry))
    }

    /// The entry of a translated guest (PVH).
    pub const fn plain(entry: &'a AtomicU64) -> Self {
        Self(EntryPlace::Plain(entry))
    }
}

/// A stretch of virtual addresses with its own first-level tables, set aside for areas.
///
/// The methods may be called on any vCPU. [`base`](Self::base), [`address`](Self::address) and
/// [`flushes`](Self::flushes) are also called under the lock of the areas, so they must not call the
/// [`Vmap`](super::Vmap). The other methods are called with no lock of this crate held.
///
/// # Safety
/// The implementor guarantees that
/// * no other code maps or uses an address in the [`pages`](Self::pages) pages from
///   [`base`](Self::base) on, all of which are canonical addresses;
/// * [`entry`](Self::entry) names the entry of that page in every address space of the guest, and
///   always the same one; the entry maps nothing at first;
/// * at most one [`Vmap`](super::Vmap) is ever made of the stretch;
/// * [`xen`](Self::xen) is the hypervisor of this domain, and [`flushes`](Self::flushes) its clock, the
///   one that transactions use.
pub unsafe trait AreaTables {
    /// The hypervisor.
    type Xen: Xen;

    /// The hypervisor, as the calling vCPU reaches it.
    fn xen(&self) -> &Self::Xen;

    /// The clock by which all flushes of the domain are made.
    fn flushes(&self) -> &FlushClock;

    /// The number that maps `pfn` in a page-table entry; `None` if no memory backs the frame.
    fn gfn(&self, pfn: Pfn) -> Option<Gfn>;

    /// The first address.
    fn base(&self) -> VirtAddr;

    /// The number of pages.
    fn pages(&self) -> u32;

    /// The entry of a page below [`pages`](Self::pages).
    fn entry(&self, page: u32) -> AreaEntry<'_>;

    /// The address of a page.
    fn address(&self, page: u32) -> VirtAddr {
        self.base() + u64::from(page) * PAGE_SIZE as u64
    }
}
