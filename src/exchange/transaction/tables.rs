//! Whole first-level tables: unhooks them in place of clearing 512 entries, and hooks them in again.
//!
//! While a table is unhooked, its frame is ordinary memory. The frame is mapped writable, and plain
//! stores fill it. Xen checks all entries when the table is hooked in again. It does so only if the
//! frame is mapped read-only; so the two writes of either way have an order.

use hypercall::ops::{MmuUpdate, Pte};
use hypercall::{DomId, PageTableFlags, Xen, XenErrno};

use super::entries::{MapResult, UNKNOWN, map_entries};
use crate::addr::{MachineAddr, Mfn, Pfn, PseudoPhysAddr};
use crate::exchange::error::ExchangeError;
use crate::exchange::guest::GuestHandle;
use crate::frames::FrameRun;
use crate::paging::{FirstLevelTable, LinearMapping, PteBatch};

/// The number of entries in a table.
const ENTRIES: u64 = 512;

/// What is known of the whole tables of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// They are hooked in: an entry can be written by Xen alone.
    Hooked,
    /// They are unhooked and writable.
    Unhooked,
    /// Each is in one of these states or between them: Xen refused a write.
    Unsure,
}

/// Frames of a run whose entries are written in one way.
pub(super) struct Piece {
    pub first: Pfn,
    pub frames: u64,
    /// The table that maps exactly these frames; otherwise entries are written.
    pub table: Option<Table>,
}

/// Cuts the frames from `first` on into pieces.
pub(super) fn pieces<X, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    first: Pfn,
    frames: u64,
) -> impl Iterator<Item = Piece> {
    let end = first.add(frames);
    let whole_table = move |first: Pfn| {
        let fits = first.number().is_multiple_of(ENTRIES) && first.add(ENTRIES) <= end;
        fits.then(|| Table::find(guest, first)).flatten()
    };
    let mut at = first;
    core::iter::from_fn(move || {
        let first = at;
        if first >= end {
            return None;
        }
        if let Some(table) = whole_table(first) {
            at = first.add(ENTRIES);
            return Some(Piece { first, frames: ENTRIES, table: Some(table) });
        }
        // Up to the next whole table.
        loop {
            at = Pfn::new((at.number() + 1).next_multiple_of(ENTRIES)).min(end);
            if at >= end || whole_table(at).is_some() {
                let frames = at.number() - first.number();
                return Some(Piece { first, frames, table: None });
            }
        }
    })
}

/// A first-level table all of whose frames belong to a run.
#[derive(Clone, Copy)]
pub(super) struct Table {
    table: FirstLevelTable,
    /// The machine frame in which it lies.
    mfn: Mfn,
}

impl Table {
    /// The writes that unhook a table, or hook it in.
    pub const WRITES: u64 = 2;

    fn find<X, L: LinearMapping>(guest: &GuestHandle<'_, X, L>, first: Pfn) -> Option<Self> {
        let table = guest.linear.whole_table(first)?;
        let mfn = guest.p2m.mfn(table.frame)?;
        Some(Self { table, mfn })
    }

    /// Adds the writes that unhook the table to a batch.
    ///
    /// # Safety
    /// Nothing uses the frames that the table maps ([M1](crate::rules#M1)).
    pub unsafe fn collect_unhooking<X: Xen, L: LinearMapping>(
        &self,
        guest: &GuestHandle<'_, X, L>,
        batch: &mut PteBatch<'_, X>,
    ) -> Result<(), XenErrno> {
        let (entry, pte) = self.own_entry(guest, true);
        // SAFETY: the first write removes mappings that nothing uses: the function's requirement. The
        // second gives the table's frame more rights.
        unsafe {
            batch.write(self.table.upper, Pte::NOT_PRESENT)?;
            batch.write(entry, pte)
        }
    }

    /// Maps the frames of the table, from `first` on, to the machine frames in `backing`.
    pub fn map<X: Xen, L: LinearMapping>(
        &self,
        guest: &GuestHandle<'_, X, L>,
        first: Pfn,
        backing: &[u64],
        tables: Tables,
        mapping: &mut MapResult,
    ) {
        let flags = guest.linear.flags();
        let is_known = |number: &u64| *number != UNKNOWN;
        let pte = |number: &u64| match is_known(number) {
            true => Pte::new(Mfn::new(*number), flags),
            false => Pte::NOT_PRESENT,
        };
        let writable = match tables {
            Tables::Unhooked => Ok(()),
            // The table is still hooked in, or this write hooks it in as it was. Xen refuses the write if
            // the table is mapped writable.
            _ if self.write(guest, &[self.hooked()]).is_ok() => {
                return map_entries(guest, first, backing, mapping);
            }
            _ => self.write(guest, &[self.own_entry(guest, true)]),
        };
        let hooked = writable.and_then(|()| self.hook(guest, backing.iter().map(pte)));
        let Err(errno) = hooked else {
            // The P2M follows the mapping, because it must not name a machine frame that is not mapped
            // ([M4](crate::rules#M4)).
            let mfns = backing.iter().map(|number| is_known(number).then(|| Mfn::new(*number)));
            guest.p2m.set_run(first, mfns);
            mapping.lost += backing.iter().filter(|number| !is_known(number)).count() as u64;
            return;
        };
        // Xen refuses a frame and does not say which one. So the table is hooked in empty, and the entries
        // are written one by one.
        match self.hook_empty(guest) {
            Ok(()) => map_entries(guest, first, backing, mapping),
            Err(_) => {
                // The frames are quarantined, so a refusal changes nothing.
                let _best_effort = self.write(guest, &[(self.table.upper, Pte::NOT_PRESENT)]);
                mapping.lost += ENTRIES;
                mapping.error.get_or_insert(ExchangeError::PageTable { pfn: first, errno });
            }
        }
    }

    /// Hooks the table in without an entry.
    ///
    /// # Errors
    /// Xen refused it.
    #[cold]
    fn hook_empty<X: Xen, L: LinearMapping>(
        &self,
        guest: &GuestHandle<'_, X, L>,
    ) -> Result<(), XenErrno> {
        self.write(guest, &[self.own_entry(guest, true)])?;
        self.hook(guest, core::iter::repeat(Pte::NOT_PRESENT))
    }

    /// Fills the table, which is unhooked and writable, and hooks it in.
    ///
    /// # Errors
    /// Xen refused a frame or the table.
    fn hook<X: Xen, L: LinearMapping>(
        &self,
        guest: &GuestHandle<'_, X, L>,
        ptes: impl Iterator<Item = Pte>,
    ) -> Result<(), XenErrno> {
        let start = PseudoPhysAddr::of(self.table.frame).get();
        for (index, pte) in (0..ENTRIES).zip(ptes) {
            let at = PseudoPhysAddr::new(start + index * size_of::<Pte>() as u64);
            // SAFETY: the table's frame is mapped writable, and until it is hooked in again nothing else
            // uses it: all frames that it maps belong to the transaction's run.
            unsafe { guest.linear.store(at, pte.raw()) };
        }
        self.write(guest, &[self.own_entry(guest, false), self.hooked()])
    }

    /// Returns the entry that maps the table's own frame, and its value.
    fn own_entry<X, L: LinearMapping>(
        &self,
        guest: &GuestHandle<'_, X, L>,
        writable: bool,
    ) -> (MachineAddr, Pte) {
        let mut flags = guest.linear.flags();
        flags.set(PageTableFlags::WRITABLE, writable);
        (guest.linear.entry(self.table.frame), Pte::new(self.mfn, flags))
    }

    /// Returns the second-level entry of the table, and its value.
    const fn hooked(&self) -> (MachineAddr, Pte) {
        (self.table.upper, self.table.hook)
    }

    fn write<X: Xen, L: LinearMapping, const N: usize>(
        &self,
        guest: &GuestHandle<'_, X, L>,
        writes: &[(MachineAddr, Pte); N],
    ) -> Result<(), XenErrno> {
        let updates = writes.map(|(entry, pte)| MmuUpdate::page_table(entry.get(), pte));
        // SAFETY: the writes change the mapping of frames of the transaction's run, which nothing uses
        // ([M1](crate::rules#M1)), and the rights of the table's own frame.
        unsafe { guest.xen.mmu_update(&updates, &mut 0, DomId::SELF) }.map(|_| ())
    }
}

/// Hooks in all whole tables of a run, without an entry, so that single entries can be written.
///
/// # Errors
/// Xen refused it for one of them.
#[cold]
pub(super) fn hook_all<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    tables: Tables,
) -> Result<(), XenErrno> {
    if tables == Tables::Hooked {
        return Ok(());
    }
    for table in pieces(guest, run.first(), run.frames()).filter_map(|piece| piece.table) {
        let as_it_was = tables == Tables::Unsure && table.write(guest, &[table.hooked()]).is_ok();
        if !as_it_was {
            table.hook_empty(guest)?;
        }
    }
    Ok(())
}
