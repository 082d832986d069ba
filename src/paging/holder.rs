//! What else references a frame.

use core::fmt;

use crate::addr::{Pfn, VirtAddr};

/// What references a frame that Xen refuses to take, as far as the guest can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// Nothing that the guest knows of.
    Unknown,
    /// A virtual area that its owner has not unmapped.
    Area {
        /// The address at which the area maps the frame.
        address: VirtAddr,
        /// The name of the area.
        name: &'static str,
    },
    /// A virtual area that was unmapped, but whose page-table entries were not dropped.
    Leftover {
        /// The address at which the area maps the frame.
        address: VirtAddr,
        /// The name of the area.
        name: &'static str,
    },
    /// A page-table entry that belongs to no virtual area.
    Mapping {
        /// The address that the entry maps.
        address: VirtAddr,
    },
    /// The frame is a page table.
    PageTable {
        /// The level of the table, 1 to 4.
        level: u8,
    },
    /// The frame is in a descriptor table (GDT, LDT) of a vCPU.
    DescriptorTable {
        /// The vCPU.
        vcpu: u32,
    },
    /// The frame is granted to another domain.
    Granted {
        /// The grant reference: the index of the entry in the grant table.
        reference: u32,
    },
    /// The frame is shared with another domain or with Xen for good.
    Shared {
        /// What it is shared as.
        name: &'static str,
    },
    /// A device is accessing the frame.
    Device {
        /// The name of the device.
        name: &'static str,
    },
}

impl Holder {
    /// Returns true if the holder can release the frame.
    pub const fn is_transient(&self) -> bool {
        !matches!(self, Self::Shared { .. })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str(
                "has an unknown holder (EINVAL): it is still mapped elsewhere, a page table, granted, \
                 shared, or not this domain's",
            ),
            Self::Area { address, name } => {
                write!(f, "mapped at {address:#x} by vmap area \"{name}\", which is in use")
            }
            Self::Leftover { address, name } => {
                write!(f, "mapped at {address:#x} by vmap area \"{name}\", which is unmapped but not purged")
            }
            Self::Mapping { address } => write!(f, "mapped at {address:#x}, by no vmap area"),
            Self::PageTable { level } => write!(f, "is a page table of level {level}"),
            Self::DescriptorTable { vcpu } => write!(f, "is in a descriptor table of vCPU {vcpu}"),
            Self::Granted { reference } => write!(f, "is granted by reference {reference}"),
            Self::Shared { name } => write!(f, "is shared: {name}"),
            Self::Device { name } => write!(f, "is being accessed by device {name}"),
        }
    }
}

/// A frame that is in use, and what references it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInUse {
    /// The frame.
    pub pfn: Pfn,
    /// What references it.
    pub holder: Holder,
}

impl FrameInUse {
    /// Returns true if the same call can succeed later although the caller changes nothing: the
    /// holder can release the frame.
    pub const fn is_transient(&self) -> bool {
        self.holder.is_transient()
    }
}

impl fmt::Display for FrameInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {} {}", self.pfn, self.holder)
    }
}

impl core::error::Error for FrameInUse {}
