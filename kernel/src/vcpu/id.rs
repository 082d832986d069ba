//! The names of vCPUs.

use core::fmt;

/// The number of vCPUs that the kernel can use.
///
/// Their `vcpu_info` lies in the shared page (`XEN_LEGACY_MAX_VCPUS` in `public/arch-x86/xen.h`).
pub const MAX: u32 = 32;

/// The number by which Xen names a vCPU of this domain. It is below [`MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuId(u32);

impl VcpuId {
    /// The vCPU that the domain starts with.
    pub const BOOT: Self = Self(0);

    /// Returns the vCPU with a number, or `None` from [`MAX`] on.
    pub const fn new(number: u32) -> Option<Self> {
        if number < MAX { Some(Self(number)) } else { None }
    }

    /// Returns the number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Returns the number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
