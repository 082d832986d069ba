//! What can go wrong with virtual areas.

use core::fmt;

use hypercall::XenErrno;

use super::area::Area;
use crate::addr::Pfn;
use crate::paging::{FrameInUse, Holder};

/// Why frames were not mapped, or why entries were not dropped.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmapError {
    /// The memory that was lent is for a stretch of another size.
    WrongMemory {
        /// Pages of the stretch of addresses.
        pages: u32,
        /// Pages that the memory was prepared for.
        prepared: usize,
    },
    /// The request names no frames.
    Empty,
    /// The request names more frames than the largest area has pages.
    TooLarge {
        /// Pages of the request. There may be more if the request can only be counted one by one.
        pages: usize,
        /// Pages of the largest area.
        limit: u32,
    },
    /// The guest has no frame of this number.
    NoSuchFrame {
        /// The frame.
        pfn: Pfn,
        /// The number of frames that the registry has memory for.
        frames: u64,
    },
    /// No memory backs the frame.
    NotPopulated {
        /// The frame.
        pfn: Pfn,
    },
    /// No run of free addresses is long enough, or no record is free.
    NoSpace {
        /// Pages of the request.
        pages: u32,
        /// Free pages, not necessarily in one run.
        free: u32,
        /// Areas in use.
        areas: u32,
    },
    /// Xen refused to map the frame. A page table, for example, cannot be mapped writable.
    Refused {
        /// The frame.
        pfn: Pfn,
        /// Xen's answer.
        errno: XenErrno,
    },
    /// A live area maps one of the frames. The area was left alone.
    InUse(FrameInUse),
    /// Xen refused to drop an entry. The next purge tries again.
    NotDropped {
        /// The frame, and the area that maps it.
        entry: FrameInUse,
        /// Xen's answer.
        errno: XenErrno,
    },
    /// The entries were dropped, but Xen refused the flush.
    FlushRefused {
        /// Xen's answer.
        errno: XenErrno,
    },
    /// The area does not belong to this `Vmap`. It is returned here.
    UnknownArea(Area),
}

impl VmapError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Another user of the guest's areas can end an area, or Xen can have memory again. All other
    /// errors come back until the caller passes something else.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::InUse(_) => true,
            Self::Refused { errno, .. }
            | Self::NotDropped { errno, .. }
            | Self::FlushRefused { errno } => {
                matches!(*errno, XenErrno::ENOMEM | XenErrno::EBUSY | XenErrno::EAGAIN)
            }
            Self::WrongMemory { .. }
            | Self::Empty
            | Self::TooLarge { .. }
            | Self::NoSuchFrame { .. }
            | Self::NotPopulated { .. }
            | Self::UnknownArea(_) => false,
        }
    }

    /// The frame that a purge of the run from `first` on could not free, and its holder.
    pub(super) const fn held(&self, first: Pfn) -> FrameInUse {
        match self {
            Self::InUse(entry) | Self::NotDropped { entry, .. } => *entry,
            // A purge without a flush has no other error.
            _ => FrameInUse { pfn: first, holder: Holder::Unknown },
        }
    }
}

impl fmt::Display for VmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongMemory { pages, prepared } => write!(
                f,
                "the stretch of addresses has {pages} pages, but the memory was prepared for \
                 {prepared}: pass the same number to VmapSizes"
            ),
            Self::Empty => f.write_str("an area must have at least one frame"),
            Self::TooLarge { pages, limit } => write!(
                f,
                "{pages} pages are more than the largest area of {limit} pages: map fewer frames, or \
                 set a longer stretch of addresses aside"
            ),
            Self::NoSuchFrame { pfn, frames } => {
                write!(f, "pfn {pfn} is not below the guest's {frames} frames")
            }
            Self::NotPopulated { pfn } => write!(f, "no memory backs pfn {pfn}"),
            Self::NoSpace { pages, free, areas } => write!(
                f,
                "no addresses or no record for an area of {pages} pages: {free} pages are free, \
                 {areas} areas are in use; end an area first"
            ),
            Self::Refused { pfn, errno } => {
                write!(f, "Xen refused to map pfn {pfn} with this protection: {errno}")
            }
            Self::InUse(entry) => entry.fmt(f),
            Self::NotDropped { entry, errno } => write!(
                f,
                "Xen refused to drop an entry: {errno}; {entry}; the next purge tries again"
            ),
            Self::FlushRefused { errno } => write!(
                f,
                "Xen refused to flush the TLBs: {errno}; the addresses stay reserved until a flush \
                 succeeds"
            ),
            Self::UnknownArea(area) => {
                write!(f, "{area:?} belongs to another Vmap: unmap it there")
            }
        }
    }
}

impl core::error::Error for VmapError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::super::area::AreaId;
    use super::*;
    use crate::addr::VirtAddr;

    /// The place of each variant in the table below. A new variant does not compile until it has one.
    fn place(error: &VmapError) -> usize {
        match error {
            VmapError::WrongMemory { .. } => 0,
            VmapError::Empty => 1,
            VmapError::TooLarge { .. } => 2,
            VmapError::NoSuchFrame { .. } => 3,
            VmapError::NotPopulated { .. } => 4,
            VmapError::NoSpace { .. } => 5,
            VmapError::Refused { .. } => 6,
            VmapError::InUse(_) => 7,
            VmapError::NotDropped { .. } => 8,
            VmapError::FlushRefused { .. } => 9,
            VmapError::UnknownArea(_) => 10,
        }
    }

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        let pfn = Pfn::new(7);
        let entry = FrameInUse { pfn, holder: Holder::Unknown };
        let id = AreaId { record: 0, generation: 1 };
        let area = || Area::new(id, 3, 2, VirtAddr::new(0x3000));
        let table = [
            (
                VmapError::WrongMemory { pages: 8, prepared: 9 },
                false,
                "has 8 pages, but the memory was prepared for 9",
            ),
            (VmapError::Empty, false, "at least one frame"),
            (
                VmapError::TooLarge { pages: 9, limit: 8 },
                false,
                "9 pages are more than the largest area of 8",
            ),
            (
                VmapError::NoSuchFrame { pfn, frames: 6 },
                false,
                "pfn 0x7 is not below the guest's 6 frames",
            ),
            (VmapError::NotPopulated { pfn }, false, "no memory backs pfn 0x7"),
            (
                VmapError::NoSpace { pages: 5, free: 4, areas: 3 },
                true,
                "5 pages: 4 pages are free, 3 areas",
            ),
            (
                VmapError::Refused { pfn, errno: XenErrno::EINVAL },
                false,
                "map pfn 0x7 with this protection: -EINVAL",
            ),
            (VmapError::Refused { pfn, errno: XenErrno::ENOMEM }, true, "-ENOMEM"),
            (VmapError::InUse(entry), true, "pfn 0x7"),
            (
                VmapError::NotDropped { entry, errno: XenErrno::EINVAL },
                false,
                "drop an entry: -EINVAL",
            ),
            (VmapError::NotDropped { entry, errno: XenErrno::EBUSY }, true, "pfn 0x7"),
            (VmapError::FlushRefused { errno: XenErrno::EPERM }, false, "flush the TLBs: -EPERM"),
            (VmapError::FlushRefused { errno: XenErrno::EAGAIN }, true, "-EAGAIN"),
            (VmapError::UnknownArea(area()), false, "Area(2 pages at 0x3000) belongs to another"),
        ];
        for (error, transient, words) in &table {
            let text = error.to_string();
            assert!(text.contains(words), "{text}");
            assert_eq!(error.is_transient(), *transient, "{text}");
        }
        let places: std::collections::BTreeSet<usize> =
            table.iter().map(|(error, ..)| place(error)).collect();
        assert!(places.into_iter().eq(0..11), "every variant is in the table");
    }
}
