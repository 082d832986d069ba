//! What virtual areas report.

use crate::addr::VirtAddr;

/// A number of areas and of their pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AreaCount {
    /// Areas.
    pub areas: u32,
    /// Pages of those areas.
    pub pages: u32,
}

/// The number of areas and pages in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmapStats {
    /// Areas in use by their owners, and pages with an entry.
    pub live: AreaCount,
    /// Areas that their owners unmapped, and pages that still have an entry.
    pub leftover: AreaCount,
    /// Areas without entries whose addresses wait for a flush.
    pub retired: AreaCount,
    /// Pages of addresses that are free.
    pub free_pages: u32,
}

/// An address of an area that maps a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The address.
    pub address: VirtAddr,
    /// The name that the owner gave the area.
    pub name: &'static str,
    /// True until the owner unmaps the area.
    pub live: bool,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Aliases that it dropped.
    pub aliases: u32,
    /// Areas whose last alias it dropped.
    pub areas: u32,
    /// True if it made a flush.
    pub flushed: bool,
}
