//! What a user of areas chooses, and what he is told of them.

use hypercall::PageTableFlags;

use crate::addr::VirtAddr;

/// When an unmapped area's entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When somebody needs the frames, or the budget is spent.
    Lazy,
    /// At once, with a flush of all vCPUs.
    Sync,
}

impl Default for Mode {
    /// Lazy, unless the feature `vmap-sync` says otherwise.
    fn default() -> Self {
        if cfg!(feature = "vmap-sync") { Self::Sync } else { Self::Lazy }
    }
}

/// What may be left behind at most. Past either, all leftovers are purged, without a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Pages whose entries are left.
    pub pages: u32,
    /// Areas that are not wholly purged.
    pub areas: u32,
}

/// What a purge does about TLBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing: somebody else's flush covers what was dropped, before it matters.
    Inhibit,
    /// One flush of all vCPUs at the end, by Xen.
    Now,
}

/// What an area allows. Nothing in an area can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Areas, and pages of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Areas.
    pub areas: u32,
    /// Pages with an entry, or of addresses that wait for a flush.
    pub pages: u32,
}

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In use by their owners.
    pub live: Count,
    /// Unmapped by their owners, entries left.
    pub leftover: Count,
    /// No entries left, waiting for a flush.
    pub retired: Count,
    /// Pages of addresses that are free.
    pub free_pages: u32,
}

/// An address that maps a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Where.
    pub address: VirtAddr,
    /// What the area's owner called it.
    pub name: &'static str,
    /// Whether the owner has not unmapped it.
    pub live: bool,
}
