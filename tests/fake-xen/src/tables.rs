//! First-level page tables: every entry holds a reference on the frame that it maps.
//!
//! The model has no tables of higher levels: [`AddressSpace`] records which table covers which 2 MiB. An
//! entry of the second level has a machine address all the same, above all memory.

use std::collections::{BTreeMap, HashMap};

use hypercall::ops::Pte;
use hypercall::{Mfn, PageTableFlags, XenErrno};

use crate::content::WORDS;
use crate::frame::{Owner, PageType};
use crate::machine::MachineState;

/// Bits of an entry that may change without a check of the frame (`FASTPATH_FLAG_WHITELIST`).
const FAST: u64 = PageTableFlags::ACCESSED.bits() | PageTableFlags::DIRTY.bits();

/// `PAGE_CACHE_ATTRS`. The last is the bit that means a large page in other levels.
const CACHE_ATTRIBUTES: PageTableFlags =
    PageTableFlags::WRITE_THROUGH.union(PageTableFlags::NO_CACHE).union(PageTableFlags::HUGE_PAGE);

/// Where the parts of the guest's address space begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressLayout {
    /// The linear mapping: frame *n* is *n* pages further on.
    pub linear: u64,
    /// The first of 512 pages for aliases.
    pub aliases: u64,
    /// The virtual areas.
    pub areas: u64,
}

impl AddressLayout {
    /// The number of the page at which the linear mapping maps a frame.
    pub const fn linear_page(&self, pfn: u64) -> u64 {
        (self.linear >> 12) + pfn
    }
}

/// Which first-level table covers which 2 MiB of virtual addresses.
#[derive(Debug, Default)]
pub(crate) struct AddressSpace {
    tables: BTreeMap<u64, u64>,
    places: HashMap<u64, Vec<u64>>,
}

impl AddressSpace {
    /// The machine frames that are tables of the address space, once for each 2 MiB that they cover.
    pub fn tables(&self) -> impl Iterator<Item = (u64, u64)> {
        self.tables.iter().map(|(place, mfn)| (*place, *mfn))
    }
}

impl MachineState {
    /// Machine address of the entry that maps a page.
    pub fn entry_of(&self, page: u64) -> Option<u64> {
        let table = self.space.tables.get(&(page / WORDS as u64))?;
        Some((table << 12) + page % WORDS as u64 * 8)
    }

    pub fn read_entry(&self, entry: u64) -> Pte {
        let frame = &self.frames[(entry >> 12) as usize];
        Pte::from_raw(frame.content.read((entry & 0xfff) as usize / 8))
    }

    /// The entry that maps a page. In a translated guest it is Xen's: where the page is one of the
    /// linear mapping, it maps the guest frame's machine frame.
    pub fn mapping_of(&self, page: u64) -> Pte {
        match &self.domain.physmap {
            None => self.entry_of(page).map_or(Pte::NOT_PRESENT, |entry| self.read_entry(entry)),
            Some(physmap) => {
                let pfn = page.checked_sub(self.layout.linear_page(0));
                let mfn = pfn.and_then(|pfn| physmap.get(pfn as usize).copied().flatten());
                let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
                mfn.map_or(Pte::NOT_PRESENT, |mfn| Pte::new(Mfn::new(mfn), flags))
            }
        }
    }

    /// Maps the linear page of a translated guest's frame anew.
    pub fn physmap_changed(&self, pfn: u64) {
        if let Some(ram) = &self.ram {
            let page = self.layout.linear_page(pfn);
            ram.show(page, self.mapping_of(page));
        }
    }

    /// Machine address of the second-level entry of a table of the linear mapping.
    pub fn upper_entry(&self, table: u64) -> u64 {
        const ABOVE_ALL_MEMORY: u64 = 1 << 51;
        ABOVE_ALL_MEMORY + table * 8
    }

    /// Writes a second-level entry (`mod_l2_entry`). As in Xen, the old table is released only when the
    /// new one is accepted. Translations through it stay in TLBs until a flush, which Xen may make on
    /// its own account, but no rule relies on that.
    pub fn write_upper(&mut self, entry: u64, new: Pte) -> Result<(), XenErrno> {
        let place = (self.layout.linear >> 21) + (entry - self.upper_entry(0)) / 8;
        let old = self.space.tables.get(&place).copied();
        let table = new.is_present().then(|| new.mfn().number());
        if old == table {
            return Ok(());
        }
        if let Some(old) = old {
            let entries = self.entries_of(old);
            self.space.tables.remove(&place);
            self.space.places.entry(old).or_default().retain(|hooked| *hooked != place);
            for (index, pte) in (0..).zip(entries) {
                self.pte_changed(place * WORDS as u64 + index, pte, Pte::NOT_PRESENT);
            }
            self.put_table(old);
        }
        table.map_or(Ok(()), |table| self.hook(place, table))
    }

    fn entries_of(&self, table: u64) -> Vec<Pte> {
        (0..WORDS as u64).map(|index| self.read_entry((table << 12) + index * 8)).collect()
    }

    /// Puts a table into the address space, as an entry of the second level does.
    pub fn hook(&mut self, place: u64, table: u64) -> Result<(), XenErrno> {
        self.get_table(table)?;
        self.space.tables.insert(place, table);
        self.space.places.entry(table).or_default().push(place);
        if let Some(ram) = &self.ram {
            for index in 0..WORDS as u64 {
                let pte = self.read_entry((table << 12) + index * 8);
                ram.show(place * WORDS as u64 + index, pte);
            }
        }
        Ok(())
    }

    /// Makes a frame a page table, or adds a user to one. The first user validates it.
    pub fn get_table(&mut self, table: u64) -> Result<(), XenErrno> {
        let frame = self.own(table).ok_or(XenErrno::EINVAL)?;
        if !frame.admits(PageType::L1) {
            return Err(XenErrno::EINVAL);
        }
        let fresh = frame.kind_count == 0;
        frame.kind = PageType::L1;
        frame.kind_count += 1;
        frame.references += 1;
        if fresh && let Err(errno) = self.validate(table) {
            let frame = &mut self.frames[table as usize];
            frame.kind_count = 0;
            self.put_page(table);
            return Err(errno);
        }
        Ok(())
    }

    /// Undoes [`get_table`](Self::get_table).
    pub fn put_table(&mut self, table: u64) {
        self.frames[table as usize].kind_count -= 1;
        if self.frames[table as usize].kind_count == 0 {
            for index in 0..WORDS as u64 {
                self.put_entry(self.read_entry((table << 12) + index * 8));
            }
        }
        self.put_page(table);
    }

    fn validate(&mut self, table: u64) -> Result<(), XenErrno> {
        for index in 0..WORDS as u64 {
            if let Err(errno) = self.get_entry(self.read_entry((table << 12) + index * 8)) {
                for index in 0..index {
                    self.put_entry(self.read_entry((table << 12) + index * 8));
                }
                return Err(errno);
            }
        }
        Ok(())
    }

    /// Takes the references that an entry holds (`get_page_from_l1e`).
    fn get_entry(&mut self, pte: Pte) -> Result<(), XenErrno> {
        if !pte.is_present() {
            return Ok(());
        }
        // Only a domain with devices may choose how memory is cached (`l1_disallow_mask`).
        if !self.domain.privileged && pte.flags().intersects(CACHE_ATTRIBUTES) {
            return Err(XenErrno::EINVAL);
        }
        let mfn = pte.mfn().number();
        match self.frame(mfn).map(|frame| frame.owner) {
            // Memory of a device, to which dom0 has access.
            None | Some(Owner::Hole) if self.domain.privileged => return Ok(()),
            None | Some(Owner::Hole) => return Err(XenErrno::EPERM),
            Some(Owner::Domain(id)) if id == self.domain.id => {}
            Some(_) => return Err(XenErrno::EBUSY),
        }
        let frame = &mut self.frames[mfn as usize];
        if pte.is_writable() {
            if !frame.admits(PageType::Writable) {
                return Err(XenErrno::EBUSY);
            }
            frame.kind = PageType::Writable;
            frame.kind_count += 1;
        }
        frame.references += 1;
        Ok(())
    }

    fn put_entry(&mut self, pte: Pte) {
        if !pte.is_present() {
            return;
        }
        let mfn = pte.mfn().number();
        if self.frame(mfn).is_none_or(|frame| frame.owner == Owner::Hole) {
            return;
        }
        if pte.is_writable() {
            self.frames[mfn as usize].kind_count -= 1;
        }
        self.put_page(mfn);
    }

    /// Writes an entry of a validated table (`mod_l1_entry`). It takes the references on the new frame
    /// first, so that a refusal changes nothing.
    pub fn write_entry(&mut self, entry: u64, new: Pte) -> Result<(), XenErrno> {
        let old = self.read_entry(entry);
        let similar = old.is_present() && (old.raw() ^ new.raw()) & !FAST == 0;
        if !similar {
            self.get_entry(new)?;
        }
        let index = (entry & 0xfff) as usize / 8;
        self.frames[(entry >> 12) as usize].content.write(index, new.raw());
        for place in self.space.places.get(&(entry >> 12)).cloned().unwrap_or_default() {
            self.pte_changed(place * WORDS as u64 + index as u64, old, new);
        }
        if !similar {
            self.put_entry(old);
        }
        Ok(())
    }
}
