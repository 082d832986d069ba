//! What a user of virtual areas chooses.

use hypercall::PageTableFlags;

/// When the page-table entries of an unmapped area are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapMode {
    /// When an exchange needs the frames, or when the budget is spent.
    Lazy,
    /// At once, with a flush of all vCPUs.
    Sync,
}

impl Default for UnmapMode {
    /// Lazy, unless the feature `vmap-sync` is on.
    fn default() -> Self {
        if cfg!(feature = "vmap-sync") { Self::Sync } else { Self::Lazy }
    }
}

/// The limit on leftovers.
///
/// When either number is exceeded, all leftovers are purged, without a flush. A larger budget purges less
/// often. What it leaves of the addresses and records must suffice for new areas: the kernel of this
/// repository allows seven eighths of both ([`VmapSizes`](super::VmapSizes)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Pages of unmapped areas that still have an entry.
    pub pages: u32,
    /// Unmapped areas that still have an entry.
    pub areas: u32,
}

/// What a purge does about TLBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// No flush. A later flush, such as that of a transaction, covers the dropped entries.
    Inhibit,
    /// One flush of all vCPUs at the end, made by Xen.
    Now,
}

/// Which accesses an area allows. Nothing in an area can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// Reads.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

impl Protection {
    pub(super) const fn flags(self) -> PageTableFlags {
        let read = PageTableFlags::PRESENT
            .union(PageTableFlags::ACCESSED)
            .union(PageTableFlags::NO_EXECUTE);
        match self {
            Self::ReadOnly => read,
            Self::ReadWrite => read.union(PageTableFlags::WRITABLE).union(PageTableFlags::DIRTY),
        }
    }
}
