//! `HYPERVISOR_mmuext_op` (`public/xen.h`).

use x86_64::VirtAddr;

use crate::Mfn;

/// One entry of `mmuext_op` (`struct mmuext_op`), in Xen's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuExtOp {
    cmd: u32,
    arg1: u64,
    arg2: u64,
}

const _: () = assert!(size_of::<MmuExtOp>() == size_of::<xen_sys::mmuext_op>());

/// The effect of an [`MmuExtOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmuExtKind {
    /// Validates a frame as a page table and keeps it validated.
    PinTable {
        /// The level of the table, 1 to 4.
        level: u8,
        /// The frame.
        mfn: Mfn,
    },
    /// Removes a pin.
    UnpinTable {
        /// The frame.
        mfn: Mfn,
    },
    /// Flushes the whole TLB of the calling vCPU.
    TlbFlushLocal,
    /// Flushes the whole TLB of every vCPU of the domain.
    TlbFlushAll,
    /// Flushes one address from the TLB of every vCPU of the domain.
    InvlpgAll {
        /// The address.
        address: u64,
    },
    /// Flushes one address from the TLB of the calling vCPU.
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
        /// The command, `MMUEXT_*`.
        cmd: u32,
    },
}

impl MmuExtOp {
    pub(crate) const fn of(cmd: u32, arg1: u64) -> Self {
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

    /// Flushes the TLB of the calling vCPU (`MMUEXT_TLB_FLUSH_LOCAL`).
    pub const fn tlb_flush_local() -> Self {
        Self::of(xen_sys::MMUEXT_TLB_FLUSH_LOCAL, 0)
    }

    /// Flushes the TLB of every vCPU of the domain (`MMUEXT_TLB_FLUSH_ALL`).
    pub const fn tlb_flush_all() -> Self {
        Self::of(xen_sys::MMUEXT_TLB_FLUSH_ALL, 0)
    }

    /// Flushes `address` from the TLB of every vCPU of the domain (`MMUEXT_INVLPG_ALL`).
    pub const fn invlpg_all(address: VirtAddr) -> Self {
        Self::of(xen_sys::MMUEXT_INVLPG_ALL, address.as_u64())
    }

    /// Flushes `address` from the TLB of the calling vCPU (`MMUEXT_INVLPG_LOCAL`).
    pub const fn invlpg_local(address: VirtAddr) -> Self {
        Self::of(xen_sys::MMUEXT_INVLPG_LOCAL, address.as_u64())
    }

    /// Fills a frame of the domain with zeros (`MMUEXT_CLEAR_PAGE`).
    pub const fn clear_page(mfn: Mfn) -> Self {
        Self::of(xen_sys::MMUEXT_CLEAR_PAGE, mfn.number())
    }

    /// Returns true if the entry flushes a TLB or one page of it, on any vCPU. Loading another
    /// top-level table also flushes.
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

    /// Returns the effect of the entry, for a model or a trace.
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
    fn operations_decode_to_what_they_were_made_of() {
        assert_eq!(
            MmuExtOp::pin_l1(Mfn::new(3)).kind(),
            MmuExtKind::PinTable { level: 1, mfn: Mfn::new(3) }
        );
        assert_eq!(MmuExtOp::tlb_flush_all().kind(), MmuExtKind::TlbFlushAll);
    }
}
