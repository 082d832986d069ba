//! `XENMEM_decrease_reservation`, `XENMEM_populate_physmap` and `XENMEM_increase_reservation`.
//!
//! All three return how many extents they did, and no error: Xen does not report what stopped them.

use hypercall::abi::memory::MemoryReservation;

use crate::fault::Cut;
use crate::machine::MachineState;

/// More extents leave no room for the progress in the command (`do_memory_op`).
const MAX_EXTENTS: u64 = (u32::MAX >> 6) as u64;

/// The first guest frame number that the model keeps no record for.
const HIGHEST_GFN: u64 = 1 << 20;

impl MachineState {
    pub fn decrease(&mut self, arg: &MemoryReservation, cut: Option<Cut>) -> u64 {
        if !self.reservation_is_sane(arg) {
            return 0;
        }
        for index in 0..arg.nr_extents {
            if cut.is_some_and(|cut| cut.after == index) {
                return index;
            }
            let Ok(first) = self.read(arg.extent_start, index) else { return index };
            for gfn in first..first.saturating_add(1 << arg.extent_order) {
                if !self.remove(gfn) {
                    return index;
                }
            }
        }
        arg.nr_extents
    }

    /// Removes a guest frame (`guest_remove_page`). A mapped frame is freed with its last mapping
    /// ([C76](xen_contig::conformance#C76)).
    fn remove(&mut self, gfn: u64) -> bool {
        let mfn = match &mut self.domain.physmap {
            None => gfn,
            Some(physmap) => {
                let taken = physmap.get_mut(gfn as usize).and_then(Option::take);
                let Some(mfn) = taken else { return false };
                self.physmap_changed(gfn);
                mfn
            }
        };
        let Some(frame) = self.own(mfn) else { return false };
        // It was removed before, and exists only while something maps it (`put_page_alloc_ref`).
        if !std::mem::replace(&mut frame.allocated, false) {
            return true;
        }
        let dirty = frame.content.uniform() != Some(0);
        frame.references += 1;
        self.dirty += u64::from(dirty);
        self.put_page(mfn);
        true
    }

    pub fn populate(&mut self, arg: &MemoryReservation, cut: Option<Cut>, placed: bool) -> u64 {
        if !self.reservation_is_sane(arg) {
            return 0;
        }
        for index in 0..arg.nr_extents {
            if cut.is_some_and(|cut| cut.after == index) {
                return index;
            }
            // An increase reads no list; it writes one if the caller wants to know the frames.
            let pfn = match placed.then(|| self.read(arg.extent_start, index)) {
                Some(Ok(pfn)) => pfn,
                None => u64::MAX,
                Some(Err(_)) => return index,
            };
            let frames = 1_u64 << arg.extent_order;
            if self.domain.pages + frames > self.domain.max_pages {
                return index;
            }
            let limit = self.frame_limit(arg.mem_flags);
            let Some(first) = self.heap.take(arg.extent_order, limit, pfn) else { return index };
            self.domain.pages += frames;
            self.assign(first, arg.extent_order);
            if placed && !self.place(pfn, first, frames, None) {
                return index;
            }
            let told = !self.domain.is_translated() && (placed || !arg.extent_start.is_null());
            if told && self.write(arg.extent_start, index, first).is_err() {
                return index;
            }
        }
        arg.nr_extents
    }

    /// The machine frame that backs a frame of a translated guest.
    pub fn backing(&self, gfn: u64) -> Option<u64> {
        self.domain.physmap.as_ref()?.get(gfn as usize).copied().flatten()
    }

    /// Makes a hole where a translated guest has the machine frame (`guest_physmap_remove_page`).
    pub fn unplace(&mut self, mfn: u64) {
        let gfn = self.m2p(mfn);
        if let Some(physmap) = &mut self.domain.physmap {
            physmap[gfn as usize] = None;
            self.physmap_changed(gfn);
        }
    }

    /// Places an extent from `pfn` on, without its frame `spared` (`guest_physmap_add_page`).
    pub fn place(&mut self, pfn: u64, first: u64, frames: u64, spared: Option<u64>) -> bool {
        let Some(physmap) = &mut self.domain.physmap else {
            (0..frames).for_each(|page| self.set_m2p(first + page, pfn.wrapping_add(page)));
            return true;
        };
        if pfn.saturating_add(frames) > HIGHEST_GFN {
            return false;
        }
        if physmap.len() < (pfn + frames) as usize {
            physmap.resize((pfn + frames) as usize, None);
        }
        let slots = &mut physmap[pfn as usize..(pfn + frames) as usize];
        let mut lost = false;
        let pages = || (0..frames).filter(|page| Some(*page) != spared);
        for page in pages() {
            lost |= slots[page as usize].replace(first + page).is_some();
        }
        for page in pages() {
            self.set_m2p(first + page, pfn + page);
            self.physmap_changed(pfn + page);
        }
        if lost {
            self.violation(&format!("pfn {pfn:#x} was populated over: its frame is lost"));
        }
        true
    }

    fn reservation_is_sane(&self, arg: &MemoryReservation) -> bool {
        self.domain.is_self(arg.domid)
            && arg.extent_order <= self.domain.max_order
            && arg.nr_extents <= MAX_EXTENTS
            && self.plausible(arg.extent_start, 0, arg.nr_extents)
    }
}
