//! Other references to a frame: aliases, a peer's grant mapping, Xen itself.
//!
//! A test prepares its case with these methods. They are not hypercalls: the model does not log them,
//! and faults do not hit them.

use hypercall::ops::Pte;
use hypercall::{Mfn, PageTableFlags, Pfn, VirtAddr};

use super::FakeGuest;
use crate::frame::{MachineFrame, Owner};
use crate::machine::{INVALID_M2P, NEIGHBOUR};

impl FakeGuest {
    /// Maps a frame a second time, at one of 512 slots.
    ///
    /// # Panics
    /// If the frame is a hole or Xen refuses the mapping.
    pub fn alias(&self, slot: u64, pfn: Pfn) -> VirtAddr {
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        let mfn = self.mfn(pfn).expect("a populated frame");
        self.set_alias(slot, Pte::new(mfn, flags));
        self.alias_address(slot)
    }

    /// Removes the alias. Flushes nothing.
    pub fn unalias(&self, slot: u64) {
        self.set_alias(slot, Pte::NOT_PRESENT);
    }

    /// The address of an alias slot. After the last of 512 slots the address has no first-level table.
    pub fn alias_address(&self, slot: u64) -> VirtAddr {
        VirtAddr::new(self.layout.aliases + (slot << 12))
    }

    /// The machine address of the entry that maps an alias slot.
    ///
    /// # Panics
    /// Beyond the last slot.
    pub fn alias_entry(&self, slot: u64) -> u64 {
        let page = (self.layout.aliases >> 12) + slot;
        self.xen.with(|machine| machine.entry_of(page)).expect("a slot below 512")
    }

    fn set_alias(&self, slot: u64, pte: Pte) {
        let entry = self.alias_entry(slot);
        self.xen.with(|machine| machine.write_entry(entry, pte)).expect("an alias");
    }

    /// A peer maps the frame by a grant, until [`unhold`](Self::unhold).
    pub fn hold(&self, pfn: Pfn) {
        self.change(pfn, |frame| {
            frame.references += 1;
            frame.holds += 1;
        });
    }

    /// Undoes [`hold`](Self::hold).
    pub fn unhold(&self, pfn: Pfn) {
        self.change(pfn, |frame| {
            frame.references -= 1;
            frame.holds -= 1;
        });
    }

    /// Marks a frame as shared with Xen (shared_info, grant table), or not.
    pub fn set_special(&self, pfn: Pfn, special: bool) {
        self.change(pfn, |frame| frame.special = special);
    }

    /// The entry that maps a frame linearly.
    ///
    /// # Panics
    /// Outside the guest's memory.
    pub fn linear_entry(&self, pfn: Pfn) -> Pte {
        self.xen.turn();
        self.xen.with(|machine| {
            let entry =
                machine.entry_of(machine.layout.linear_page(pfn.number())).expect("a frame");
            machine.read_entry(entry)
        })
    }

    /// Declares that a list of the test lies in guest frames from `pfn` on
    /// ([M3](xen_contig::rules#M3)).
    pub fn place(&self, list: &[u64], pfn: Pfn) {
        let range = list.as_ptr_range();
        let range = range.start as u64..range.end as u64;
        self.xen.with(|machine| machine.places.lists.push((range, pfn.number())));
    }

    /// Gives a free frame to another domain.
    ///
    /// # Panics
    /// If none is free.
    pub fn foreign_frame(&self) -> Mfn {
        self.xen.with(|machine| {
            let limit = machine.frames.len() as u64;
            let mfn = machine.heap.take(0, limit, u64::MAX).expect("a free frame");
            machine.frames[mfn as usize].renew(Owner::Domain(NEIGHBOUR));
            Mfn::new(mfn)
        })
    }

    /// Writes a false entry into the M2P: `mfn` backs `pfn`, or no guest frame. Returns the old entry.
    pub fn record(&self, mfn: Mfn, pfn: Option<Pfn>) -> Option<Pfn> {
        let before = self.pfn(mfn);
        let number = pfn.map_or(INVALID_M2P, Pfn::number);
        self.xen.with(|machine| machine.set_m2p(mfn.number(), number));
        before
    }

    /// How many mappings, pins and holds reference a machine frame.
    pub fn references(&self, mfn: Mfn) -> u32 {
        self.xen.with(|machine| machine.frame(mfn.number()).map_or(0, |frame| frame.references))
    }

    /// The owner of a machine frame; `None` beyond the machine.
    pub fn owner(&self, mfn: Mfn) -> Option<Owner> {
        self.xen.with(|machine| machine.frame(mfn.number()).map(|frame| frame.owner))
    }

    /// Makes policy (XSM) answer exchanges with an error from now on, or no longer.
    pub fn deny_exchange(&self, errno: Option<hypercall::XenErrno>) {
        self.xen.with(|machine| machine.domain.exchange_denied = errno);
    }

    /// Makes Xen exchange memory of a translated guest from now on, or no longer. By default
    /// it refuses, as every released Xen does ([C26](xen_contig::conformance#C26)).
    pub fn permit_translated_exchange(&self, permitted: bool) {
        self.xen.with(|machine| machine.domain.exchange_translated = permitted);
    }

    /// Sets the highest order that Xen permits.
    pub fn set_max_order(&self, order: u32) {
        self.xen.with(|machine| machine.domain.max_order = order);
    }

    /// Sets how many frames the guest may have.
    pub fn set_max_pages(&self, max_pages: u64) {
        self.xen.with(|machine| machine.domain.max_pages = max_pages);
    }

    fn change(&self, pfn: Pfn, change: impl FnOnce(&mut MachineFrame)) {
        let mfn = self.mfn(pfn).expect("a populated frame");
        self.xen.with(|machine| change(&mut machine.frames[mfn.number() as usize]));
    }
}
