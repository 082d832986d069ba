//! `mmu_update`, `update_va_mapping` and `mmuext_op` (`public/xen.h`).

use core::fmt;

use bitflags::bitflags;
use x86_64::VirtAddr;
use x86_64::structures::paging::PageTableFlags;

use crate::Mfn;

/// A page-table entry as a PV guest hands it to Xen: a machine frame and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Pte(u64);

impl Pte {
    /// Bits 12..52: the frame number.
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// The entry that maps nothing.
    pub const NOT_PRESENT: Self = Self(0);

    /// Maps `mfn` with `flags`.
    pub const fn new(mfn: Mfn, flags: PageTableFlags) -> Self {
        Self(((mfn.number() << 12) & Self::FRAME) | flags.bits())
    }

    /// Takes an entry as it stands in a table.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The entry as it stands in a table.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether the entry maps something.
    pub const fn is_present(self) -> bool {
        self.0 & PageTableFlags::PRESENT.bits() != 0
    }

    /// Whether writes through the entry are allowed.
    pub const fn is_writable(self) -> bool {
        self.0 & PageTableFlags::WRITABLE.bits() != 0
    }

    /// The machine frame. Means nothing where the entry is not present.
    pub const fn mfn(self) -> Mfn {
        Mfn::new((self.0 & Self::FRAME) >> 12)
    }

    /// All that is not the frame number.
    pub const fn flags(self) -> PageTableFlags {
        PageTableFlags::from_bits_retain(self.0 & !Self::FRAME)
    }
}

impl fmt::Debug for Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pte({:#x})", self.0)
    }
}

/// One entry of `mmu_update` (`struct mmu_update`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuUpdate {
    ptr: u64,
    val: u64,
}

const _: () = assert!(size_of::<MmuUpdate>() == size_of::<xen_sys::mmu_update>());

/// What an [`MmuUpdate`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmuUpdateKind {
    /// Writes a page-table entry, validated by Xen (`MMU_NORMAL_PT_UPDATE`).
    PageTable {
        /// Machine address of the entry, a multiple of 8.
        entry: u64,
        /// What to write.
        pte: Pte,
    },
    /// Writes the machine-to-physical entry of a frame (`MMU_MACHPHYS_UPDATE`).
    MachineToPhys {
        /// The frame.
        mfn: Mfn,
        /// Its new pseudo-physical number.
        pfn: u64,
    },
    /// A command that this crate does not make.
    Other,
}

impl MmuUpdate {
    /// Writes `pte` to the page-table entry at machine address `entry`.
    ///
    /// # Panics
    /// If `entry` is not a multiple of 8: its low bits are the command.
    pub const fn page_table(entry: u64, pte: Pte) -> Self {
        assert!(entry & 7 == 0, "a page-table entry lies at a multiple of 8");
        Self { ptr: entry | xen_sys::MMU_NORMAL_PT_UPDATE as u64, val: pte.raw() }
    }

    /// Sets the pseudo-physical number that Xen's M2P holds for `mfn`.
    pub const fn machine_to_phys(mfn: Mfn, pfn: u64) -> Self {
        Self { ptr: (mfn.number() << 12) | xen_sys::MMU_MACHPHYS_UPDATE as u64, val: pfn }
    }

    /// What the entry does, for a model or a trace.
    pub const fn kind(self) -> MmuUpdateKind {
        match self.ptr & 7 {
            0 => MmuUpdateKind::PageTable { entry: self.ptr, pte: Pte::from_raw(self.val) },
            1 => MmuUpdateKind::MachineToPhys { mfn: Mfn::new(self.ptr >> 12), pfn: self.val },
            _ => MmuUpdateKind::Other,
        }
    }
}

bitflags! {
    /// `UVMF_*`: the flush that goes with `update_va_mapping`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct UvmFlags: u64 {
        /// Flush the whole TLB (`UVMF_TLB_FLUSH`).
        const TLB_FLUSH = 1;
        /// Flush the one address (`UVMF_INVLPG`).
        const INVLPG = 2;
        /// On every vCPU of the domain, not this one alone (`UVMF_ALL`).
        const ALL = 4;
    }
}

/// One entry of `mmuext_op` (`struct mmuext_op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuExtOp {
    cmd: u32,
    arg1: u64,
    arg2: u64,
}

const _: () = assert!(size_of::<MmuExtOp>() == size_of::<xen_sys::mmuext_op>());

/// What an [`MmuExtOp`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmuExtKind {
    /// Validates a frame as a page table of a level and keeps it so.
    PinTable {
        /// 1 to 4.
        level: u8,
        /// The frame.
        mfn: Mfn,
    },
    /// Undoes a pin.
    UnpinTable {
        /// The frame.
        mfn: Mfn,
    },
    /// Flushes the whole TLB of the calling vCPU.
    TlbFlushLocal,
    /// Flushes the whole TLB of every vCPU of the domain.
    TlbFlushAll,
    /// Drops one address from the TLB of every vCPU of the domain.
    InvlpgAll {
        /// The address.
        address: u64,
    },
    /// Drops one address from the TLB of the calling vCPU.
    InvlpgLocal {
        /// The address.
        address: u64,
    },
    /// Fills a frame with zeros.
    ClearPage {
        /// The frame.
        mfn: Mfn,
    },
    /// A command that this crate does not make.
    Other {
        /// `MMUEXT_*`.
        cmd: u32,
    },
}

impl UvmFlags {
    /// Whether an `update_va_mapping` with these flushes anything.
    pub const fn flushes(self) -> bool {
        self.intersects(Self::TLB_FLUSH.union(Self::INVLPG))
    }
}

impl MmuExtOp {
    const fn of(cmd: u32, arg1: u64) -> Self {
        Self { cmd, arg1, arg2: 0 }
    }

    /// Pins `mfn` as a first-level table (`MMUEXT_PIN_L1_TABLE`).
    pub const fn pin_l1(mfn: Mfn) -> Self {
        Self::of(xen_sys::MMUEXT_PIN_L1_TABLE, mfn.number())
    }

    /// Unpins a table of any level (`MMUEXT_UNPIN_TABLE`).
    pub const fn unpin(mfn: Mfn) -> Self {
        Self::of(xen_sys::MMUEXT_UNPIN_TABLE, mfn.number())
    }

    /// Flushes the calling vCPU's TLB (`MMUEXT_TLB_FLUSH_LOCAL`).
    pub const fn tlb_flush_local() -> Self {
        Self::of(xen_sys::MMUEXT_TLB_FLUSH_LOCAL, 0)
    }

    /// Flushes the TLB of every vCPU of the domain (`MMUEXT_TLB_FLUSH_ALL`).
    pub const fn tlb_flush_all() -> Self {
        Self::of(xen_sys::MMUEXT_TLB_FLUSH_ALL, 0)
    }

    /// Drops `address` from the TLB of every vCPU (`MMUEXT_INVLPG_ALL`).
    pub const fn invlpg_all(address: VirtAddr) -> Self {
        Self::of(xen_sys::MMUEXT_INVLPG_ALL, address.as_u64())
    }

    /// Drops `address` from the calling vCPU's TLB (`MMUEXT_INVLPG_LOCAL`).
    pub const fn invlpg_local(address: VirtAddr) -> Self {
        Self::of(xen_sys::MMUEXT_INVLPG_LOCAL, address.as_u64())
    }

    /// Fills a frame of the domain with zeros (`MMUEXT_CLEAR_PAGE`).
    pub const fn clear_page(mfn: Mfn) -> Self {
        Self::of(xen_sys::MMUEXT_CLEAR_PAGE, mfn.number())
    }

    /// Whether the entry flushes a TLB, or a page of one, of whichever vCPU. Loading another
    /// top-level table flushes, too.
    pub const fn flushes(self) -> bool {
        matches!(
            self.cmd,
            xen_sys::MMUEXT_TLB_FLUSH_LOCAL
                | xen_sys::MMUEXT_INVLPG_LOCAL
                | xen_sys::MMUEXT_TLB_FLUSH_MULTI
                | xen_sys::MMUEXT_INVLPG_MULTI
                | xen_sys::MMUEXT_TLB_FLUSH_ALL
                | xen_sys::MMUEXT_INVLPG_ALL
                | xen_sys::MMUEXT_NEW_BASEPTR
        )
    }

    /// What the entry does, for a model or a trace.
    pub const fn kind(self) -> MmuExtKind {
        let mfn = Mfn::new(self.arg1);
        match self.cmd {
            cmd @ xen_sys::MMUEXT_PIN_L1_TABLE..=xen_sys::MMUEXT_PIN_L4_TABLE => {
                MmuExtKind::PinTable { level: cmd as u8 + 1, mfn }
            }
            xen_sys::MMUEXT_UNPIN_TABLE => MmuExtKind::UnpinTable { mfn },
            xen_sys::MMUEXT_TLB_FLUSH_LOCAL => MmuExtKind::TlbFlushLocal,
            xen_sys::MMUEXT_TLB_FLUSH_ALL => MmuExtKind::TlbFlushAll,
            xen_sys::MMUEXT_INVLPG_ALL => MmuExtKind::InvlpgAll { address: self.arg1 },
            xen_sys::MMUEXT_INVLPG_LOCAL => MmuExtKind::InvlpgLocal { address: self.arg1 },
            xen_sys::MMUEXT_CLEAR_PAGE => MmuExtKind::ClearPage { mfn },
            cmd => MmuExtKind::Other { cmd },
        }
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

    #[test]
    fn updates_decode_to_what_they_were_made_of() {
        let pte = Pte::new(Mfn::new(5), PageTableFlags::PRESENT);
        assert_eq!(
            MmuUpdate::page_table(0x1008, pte).kind(),
            MmuUpdateKind::PageTable { entry: 0x1008, pte }
        );
        assert_eq!(
            MmuUpdate::machine_to_phys(Mfn::new(9), 4).kind(),
            MmuUpdateKind::MachineToPhys { mfn: Mfn::new(9), pfn: 4 }
        );
        assert_eq!(
            MmuExtOp::pin_l1(Mfn::new(3)).kind(),
            MmuExtKind::PinTable { level: 1, mfn: Mfn::new(3) }
        );
        assert_eq!(MmuExtOp::tlb_flush_all().kind(), MmuExtKind::TlbFlushAll);
    }

    #[test]
    #[should_panic(expected = "multiple of 8")]
    fn a_misaligned_entry_is_no_command() {
        let _ = MmuUpdate::page_table(0x1001, Pte::NOT_PRESENT);
    }
}
