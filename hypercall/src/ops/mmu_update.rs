//! `HYPERVISOR_mmu_update` (`public/xen.h`).

use super::Pte;
use crate::Mfn;

/// One entry of `mmu_update` (`struct mmu_update`), in Xen's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MmuUpdate {
    ptr: u64,
    val: u64,
}

const _: () = assert!(size_of::<MmuUpdate>() == size_of::<xen_sys::mmu_update>());

/// The effect of an [`MmuUpdate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmuUpdateKind {
    /// Writes a page-table entry, which Xen validates (`MMU_NORMAL_PT_UPDATE`).
    PageTable {
        /// The machine address of the entry, a multiple of 8.
        entry: u64,
        /// The new entry.
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
    /// If `entry` is not a multiple of 8: its low bits hold the command.
    pub const fn page_table(entry: u64, pte: Pte) -> Self {
        assert!(entry & 7 == 0, "a page-table entry lies at a multiple of 8");
        Self { ptr: entry | xen_sys::MMU_NORMAL_PT_UPDATE as u64, val: pte.raw() }
    }

    /// Sets the pseudo-physical number that Xen's M2P holds for `mfn`.
    pub const fn machine_to_phys(mfn: Mfn, pfn: u64) -> Self {
        Self { ptr: (mfn.number() << 12) | xen_sys::MMU_MACHPHYS_UPDATE as u64, val: pfn }
    }

    /// Returns the effect of the entry, for a model or a trace.
    pub const fn kind(self) -> MmuUpdateKind {
        match self.ptr & 7 {
            0 => MmuUpdateKind::PageTable { entry: self.ptr, pte: Pte::from_raw(self.val) },
            1 => MmuUpdateKind::MachineToPhys { mfn: Mfn::new(self.ptr >> 12), pfn: self.val },
            _ => MmuUpdateKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x86_64::structures::paging::PageTableFlags;

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
    }

    #[test]
    #[should_panic(expected = "multiple of 8")]
    fn a_misaligned_entry_is_no_command() {
        let _ = MmuUpdate::page_table(0x1001, Pte::NOT_PRESENT);
    }
}
