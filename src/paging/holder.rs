//! What else has hold of a frame.

use core::fmt;

use crate::addr::{Pfn, VirtAddr};

/// Who has hold of a frame that Xen does not take, as far as the guest can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody that the guest knows of.
    Unknown,
    /// A virtual area that its owner has not unmapped.
    Area {
        /// Where the area maps the frame.
        address: VirtAddr,
        /// What its owner called it.
        name: &'static str,
    },
    /// A virtual area that was unmapped, but whose page-table entries have not been dropped.
    Leftover {
        /// Where the area maps the frame.
        address: VirtAddr,
        /// What its owner called it.
        name: &'static str,
    },
    /// A page-table entry that belongs to no virtual area.
    Mapping {
        /// What address it is the entry of.
        address: VirtAddr,
    },
    /// The frame is a page table.
    PageTable {
        /// 1 to 4.
        level: u8,
    },
    /// The frame is in a descriptor table (GDT, LDT) of a vCPU.
    DescriptorTable {
        /// The vCPU.
        vcpu: u32,
    },
    /// The frame is granted to another domain.
    Granted {
        /// The entry of the grant table.
        reference: u32,
    },
    /// The frame is shared with another domain or with Xen.
    Shared {
        /// As what.
        name: &'static str,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str(
                "(EINVAL): still mapped elsewhere, a page table, granted, shared, or not this \
                 domain's",
            ),
            Self::Area { address, name } => {
                write!(f, "mapped at {address:#x} by vmap area \"{name}\", which is in use")
            }
            Self::Leftover { address, name } => {
                write!(f, "mapped at {address:#x} by what is left of vmap area \"{name}\"")
            }
            Self::Mapping { address } => write!(f, "mapped at {address:#x}, by no vmap area"),
            Self::PageTable { level } => write!(f, "is a page table of level {level}"),
            Self::DescriptorTable { vcpu } => write!(f, "is in a descriptor table of vCPU {vcpu}"),
            Self::Granted { reference } => write!(f, "is granted by reference {reference}"),
            Self::Shared { name } => write!(f, "is shared: {name}"),
        }
    }
}

/// A frame that something has hold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The frame.
    pub pfn: Pfn,
    /// By whom.
    pub holder: Holder,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {} {}", self.pfn, self.holder)
    }
}

impl core::error::Error for Held {}
