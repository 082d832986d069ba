//! Page-table entries, and the flush of `update_va_mapping` (`public/xen.h`).

use core::fmt;

use bitflags::bitflags;
use x86_64::structures::paging::PageTableFlags;

use crate::Mfn;

/// A page-table entry of a PV guest: a machine frame and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Pte(u64);

impl Pte {
    /// Bits 12..52: the frame number.
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// The entry that maps nothing.
    pub const NOT_PRESENT: Self = Self(0);

    /// Makes an entry that maps `mfn` with `flags`.
    pub const fn new(mfn: Mfn, flags: PageTableFlags) -> Self {
        Self(((mfn.number() << 12) & Self::FRAME) | flags.bits())
    }

    /// Makes an entry from its bits in a page table.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Returns the bits of the entry in a page table.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns true if the entry maps something.
    pub const fn is_present(self) -> bool {
        self.0 & PageTableFlags::PRESENT.bits() != 0
    }

    /// Returns true if the entry allows writes.
    pub const fn is_writable(self) -> bool {
        self.0 & PageTableFlags::WRITABLE.bits() != 0
    }

    /// Returns the machine frame. It has a meaning only if the entry is present.
    pub const fn mfn(self) -> Mfn {
        Mfn::new((self.0 & Self::FRAME) >> 12)
    }

    /// Returns all bits except the frame number.
    pub const fn flags(self) -> PageTableFlags {
        PageTableFlags::from_bits_retain(self.0 & !Self::FRAME)
    }
}

impl fmt::Debug for Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pte({:#x})", self.0)
    }
}

bitflags! {
    /// The flush that `update_va_mapping` makes, `UVMF_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UvmFlags: u64 {
        /// Flushes the whole TLB (`UVMF_TLB_FLUSH`).
        const TLB_FLUSH = 1;
        /// Flushes the one address (`UVMF_INVLPG`).
        const INVLPG = 2;
        /// Flushes on every vCPU of the domain instead of only the calling one (`UVMF_ALL`).
        const ALL = 4;
    }
}

impl UvmFlags {
    /// Returns true if an `update_va_mapping` with these flags flushes anything.
    pub const fn flushes(self) -> bool {
        self.intersects(Self::TLB_FLUSH.union(Self::INVLPG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pte_keeps_frame_and_flags_apart() {
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
        let pte = Pte::new(Mfn::new(0x12_3456), flags);
        assert_eq!((pte.mfn(), pte.flags()), (Mfn::new(0x12_3456), flags));
        assert!(pte.is_present() && pte.is_writable() && !Pte::NOT_PRESENT.is_present());
    }
}
