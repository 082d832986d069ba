//! What went wrong with an area.

use core::fmt;

use hypercall::XenErrno;

use super::Area;
use crate::addr::Pfn;
use crate::paging::{Held, Holder};

/// Why frames were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmapError {
    /// No frames were named.
    Empty,
    /// More frames than the whole stretch of addresses has room for.
    TooLarge {
        /// How many.
        pages: usize,
        /// How many there may be.
        limit: u32,
    },
    /// The guest has no such frame, or nothing lies beneath it at the moment.
    NotPopulated {
        /// The frame.
        pfn: Pfn,
    },
    /// No addresses in a row, or no record, is free for so many pages.
    NoSpace {
        /// How many pages were asked for.
        pages: u32,
        /// How many are free, if not in a row.
        free: u32,
        /// How many areas are in use.
        areas: u32,
    },
    /// Xen does not let the guest map this frame so: it is a page table, say, and the area was to
    /// be writable.
    Refused {
        /// The frame.
        pfn: Pfn,
        /// What Xen answered.
        errno: XenErrno,
    },
    /// Addresses were needed, and could not be freed.
    Purge(PurgeError),
}

impl fmt::Display for VmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("an area of no frames"),
            Self::TooLarge { pages, limit } => {
                write!(f, "an area of {pages} pages is more than the {limit} that there are")
            }
            Self::NotPopulated { pfn } => write!(f, "pfn {pfn} has nothing beneath it to map"),
            Self::NoSpace { pages, free, areas } => write!(
                f,
                "no addresses for an area of {pages} pages: {free} pages are free, {areas} areas \
                 in use"
            ),
            Self::Refused { pfn, errno } => {
                write!(f, "Xen does not let the guest map pfn {pfn}: {errno}")
            }
            Self::Purge(error) => write!(f, "no addresses could be freed: {error}"),
        }
    }
}

impl core::error::Error for VmapError {}

/// Why a purge did not drop all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeError {
    /// An area that its owner has not unmapped maps one of the frames. It was not touched.
    InUse(Held),
    /// Xen refused to drop an entry. It stays on the books.
    Refused {
        /// Whose entry, of which frame.
        held: Held,
        /// What Xen answered.
        errno: XenErrno,
    },
    /// The entries are gone, but Xen refused the flush.
    Flush {
        /// What Xen answered.
        errno: XenErrno,
    },
}

impl PurgeError {
    /// Which frame is held, and by whom: what an exchange is told.
    pub const fn held(&self, run_first: Pfn) -> Held {
        match *self {
            Self::InUse(held) | Self::Refused { held, .. } => held,
            // A purge that inhibits the flush can't fail with it.
            Self::Flush { .. } => Held { pfn: run_first, holder: Holder::Unknown },
        }
    }
}

impl fmt::Display for PurgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(held) => held.fmt(f),
            Self::Refused { held, errno } => {
                write!(f, "Xen refused to drop an entry: {errno}; {held}")
            }
            Self::Flush { errno } => write!(f, "Xen refused to flush the TLBs: {errno}"),
        }
    }
}

impl core::error::Error for PurgeError {}

/// What went wrong when an area was ended.
#[derive(Debug, PartialEq, Eq)]
pub enum UnmapError {
    /// It is no area of this `Vmap`. Here it is.
    Unknown(Area),
    /// The area is unmapped, but not all entries could be dropped.
    Purge(PurgeError),
}

impl From<PurgeError> for UnmapError {
    fn from(error: PurgeError) -> Self {
        Self::Purge(error)
    }
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(area) => write!(f, "{area:?} is no area of this stretch of addresses"),
            Self::Purge(error) => write!(f, "unmapped, but entries are left: {error}"),
        }
    }
}

impl core::error::Error for UnmapError {}
