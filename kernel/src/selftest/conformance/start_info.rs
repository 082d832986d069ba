//! What the domain builder told a PV guest, read again where it still lies.
//!
//! Booting takes from start info what the kernel needs. These tests need more: the frames that
//! Xen and dom0's daemons share with the guest, and the P2M as a table to write to, since a raw
//! exchange goes past the component that keeps it otherwise.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pvh_boot::start_info::{PvConsole, PvStartInfo};
use xen_contig::addr::{Mfn, Pfn};

use crate::layout::{self, image_frame};
use crate::machine::Machine;

/// Start info.
pub struct StartInfo(PvStartInfo<'static>);

impl Deref for StartInfo {
    type Target = PvStartInfo<'static>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl StartInfo {
    /// Reads the page, which the kernel never gives away; `None` in a translated guest.
    pub fn find(machine: &Machine) -> Option<Self> {
        let page = layout::linear(machine.start_info?);
        // SAFETY: the frame is mapped, aligned, and written by nobody since the builder.
        PvStartInfo::read(unsafe { &*page.as_ptr() }).ok().map(Self)
    }

    /// The console's ring and xenstore's, which a backend in dom0 maps; a dom0 has none.
    pub fn rings(&self) -> impl Iterator<Item = (&'static str, Mfn)> {
        let console = match self.console {
            PvConsole::DomU { mfn, .. } => mfn,
            PvConsole::Dom0 { .. } => 0,
        };
        let all = [("console", console), ("xenstore", self.store_mfn)];
        all.into_iter().filter(|(_, mfn)| *mfn != 0).map(|(name, mfn)| (name, Mfn::new(mfn)))
    }

    /// Writes into the P2M what lies under `pfn` from now on.
    ///
    /// # Panics
    /// Beyond the guest's memory.
    pub fn set_p2m(&self, pfn: Pfn, mfn: u64) {
        assert!(pfn.number() < self.nr_pages, "pfn {pfn} has no entry in the P2M");
        let table = layout::linear(image_frame(self.mfn_list)).as_ptr::<AtomicU64>();
        // SAFETY: the table has an entry for each frame, is mapped for good, and is accessed
        // atomically by everyone.
        let entry = unsafe { &*table.add(pfn.number() as usize) };
        entry.store(mfn, Relaxed);
    }
}
