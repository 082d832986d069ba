//! Translations that a vCPU may still use although the page tables have changed.
//!
//! A processor may fetch a translation at any time, also by speculation. The model therefore assumes
//! that a vCPU keeps *every* translation that an address has had since the vCPU last flushed it, even
//! if the guest did not access the address. x86 never caches an entry that is not present.

use std::collections::HashMap;

use hypercall::ops::Pte;

use crate::machine::MachineState;

/// The outdated translations that one vCPU may still use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tlb {
    stale: HashMap<u64, Vec<u64>>,
}

impl Tlb {
    /// An address no longer translates to `mfn`.
    pub fn outdated(&mut self, page: u64, mfn: u64) {
        let held = self.stale.entry(page).or_default();
        if !held.contains(&mfn) {
            held.push(mfn);
        }
    }

    pub fn flush(&mut self) {
        self.stale.clear();
    }

    pub fn flush_page(&mut self, page: u64) {
        self.stale.remove(&page);
    }

    /// The frames that an access to `page` may reach instead of the one that the tables name.
    pub fn held(&self, page: u64) -> &[u64] {
        self.stale.get(&page).map_or(&[], Vec::as_slice)
    }

    /// Every stale translation: page number of the address, machine frame.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.stale.iter().flat_map(|(page, held)| held.iter().map(|mfn| (*page, *mfn)))
    }
}

impl MachineState {
    /// Notes for every vCPU that a page's entry changed, and maps the page of a real memory anew.
    ///
    /// A pointer shows the new frame at once. The host can't keep the old translation, as a
    /// processor may until it flushes.
    pub fn pte_changed(&mut self, page: u64, old: Pte, new: Pte) {
        if let Some(ram) = &self.ram {
            ram.show(page, new);
        }
        if old.is_present() && !(new.is_present() && new.mfn() == old.mfn()) {
            for tlb in &mut self.tlbs {
                tlb.outdated(page, old.mfn().number());
            }
        }
    }

    /// The machine frame that `vcpu` reaches at a page.
    ///
    /// Stops the test if a real machine would fault, or could reach the wrong frame.
    pub fn translate(&self, vcpu: usize, page: u64, write: bool) -> Option<u64> {
        let pte = self.mapping_of(page);
        let address = page << 12;
        let mfn = pte.mfn().number();
        for stale in self.tlbs[vcpu].held(page) {
            if !pte.is_present() || *stale != mfn {
                self.violation(&format!(
                    "vCPU {vcpu} accesses {address:#x}, whose entry is {pte:?}, while its TLB may \
                     still translate it to mfn {stale:#x}"
                ));
                return None;
            }
        }
        if !pte.is_present() || (write && !pte.is_writable()) {
            let access = if write { "writes to" } else { "reads" };
            let why = match self.domain.is_translated() {
                true => "which is a hole".to_string(),
                false => format!("whose entry is {pte:?}"),
            };
            self.violation(&format!("vCPU {vcpu} {access} {address:#x}, {why}"));
            return None;
        }
        Some(mfn)
    }
}
