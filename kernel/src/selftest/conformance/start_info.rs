//! The start info of a PV guest, read from the page that the domain builder wrote.
//!
//! The boot code reads what the kernel needs. These tests also need the frames that Xen and the
//! daemons of dom0 share with the guest. They write to the P2M, because a raw exchange bypasses the
//! library, which otherwise keeps it.

use core::ops::Deref;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pvh_boot::start_info::{PvConsole, PvStartInfo};
use xen_contig::addr::{Mfn, Pfn};

use crate::layout::{self, image_frame};
use crate::machine::Machine;

/// The start info.
pub struct StartInfo(PvStartInfo<'static>);

impl Deref for StartInfo {
    type Target = PvStartInfo<'static>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl StartInfo {
    /// Reads the page, which is never exchanged. Returns `None` in a translated guest.
    pub fn find(machine: &Machine) -> Option<Self> {
        let page = layout::linear(machine.start_info?);
        // SAFETY: the frame is mapped and aligned, and no code has written to it since the builder.
        PvStartInfo::read(unsafe { &*page.as_ptr() }).ok().map(Self)
    }

    /// Returns the rings of console and xenstore, which a backend in dom0 maps. dom0 itself has
    /// none.
    pub fn rings(&self) -> impl Iterator<Item = (&'static str, Mfn)> {
        let console = match self.console {
            PvConsole::DomU { mfn, .. } => mfn,
            PvConsole::Dom0 { .. } => 0,
        };
        let all = [("console", console), ("xenstore", self.store_mfn)];
        all.into_iter().filter(|(_, mfn)| *mfn != 0).map(|(name, mfn)| (name, Mfn::new(mfn)))
    }

    /// Records in the P2M which machine frame backs `pfn` from now on.
    ///
    /// # Panics
    /// If `pfn` lies beyond the guest's memory.
    pub fn set_p2m(&self, pfn: Pfn, mfn: u64) {
        assert!(pfn.number() < self.nr_pages, "pfn {pfn} has no entry in the P2M");
        let table = layout::linear(image_frame(self.mfn_list)).as_ptr::<AtomicU64>();
        // SAFETY: the table has an entry for each frame and is never unmapped. All accesses to it
        // are atomic.
        let entry = unsafe { &*table.add(pfn.number() as usize) };
        entry.store(mfn, Relaxed);
    }
}
