//! Dropping what unmapped areas left behind.

use core::ops::Range;

use super::area::AreaId;
use super::books::{Books, Claimed};
use super::tables::Writer;
use super::{AreaTables, Flush, PurgeError, Vmap};
use crate::frames::FrameRun;
use crate::paging::{Held, Holder};

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Aliases that it dropped.
    pub aliases: u32,
    /// Areas of which it dropped the last.
    pub areas: u32,
    /// Whether it made a flush.
    pub flushed: bool,
}

impl<T: AreaTables> Vmap<'_, T> {
    /// Drops the leftover aliases of a run's frames, and nothing else, 512 to a hypercall.
    ///
    /// With [`Flush::Inhibit`] there is no flush of any kind: vCPUs may remember the mappings until
    /// the caller has all of them flushed, as the end of a transaction's detach does.
    ///
    /// # Errors
    /// A frame that an area in use maps: that is never dropped. And where Xen refuses.
    pub fn purge(&self, run: &FrameRun, flush: Flush) -> Result<Purged, PurgeError> {
        let first = run.first().number();
        let mut frames = first..first + run.frames();
        let mut purged = Purged::default();
        while !frames.is_empty() {
            let mut claimed = Claimed::new();
            self.claim(&mut frames, &mut claimed)?;
            self.drop_claimed(&claimed, &mut purged)?;
        }
        self.finish(flush, purged)
    }

    /// Drops all leftover aliases.
    ///
    /// # Errors
    /// Where Xen refuses; what was dropped before stays dropped.
    pub fn purge_all(&self, flush: Flush) -> Result<Purged, PurgeError> {
        // Those that are left behind meanwhile come last; nobody has to wait for them.
        let mut to_do = self.stats().leftover.pages as usize;
        let mut purged = Purged::default();
        while to_do > 0 {
            let mut claimed = Claimed::new();
            self.books.lock().claim_leftovers(&mut claimed);
            if claimed.is_empty() {
                break;
            }
            self.drop_claimed(&claimed, &mut purged)?;
            to_do = to_do.saturating_sub(claimed.len());
        }
        self.finish(flush, purged)
    }

    /// What an exchange of the run needs: [`purge`](Self::purge) without a flush, as
    /// [`GuestMemory::purge`](crate::paging::GuestMemory::purge) answers.
    ///
    /// # Errors
    /// A frame that is held, and by whom.
    pub fn vacate(&self, run: &FrameRun) -> Result<(), Held> {
        self.purge(run, Flush::Inhibit).map(|_| ()).map_err(|error| error.held(run.first()))
    }

    /// Drops what is left of an area.
    pub(super) fn purge_area(&self, id: AreaId, purged: &mut Purged) -> Result<(), PurgeError> {
        loop {
            let mut claimed = Claimed::new();
            self.books.lock().claim_area(id, &mut claimed);
            if claimed.is_empty() {
                return Ok(());
            }
            self.drop_claimed(&claimed, purged)?;
        }
    }

    fn finish(&self, flush: Flush, mut purged: Purged) -> Result<Purged, PurgeError> {
        if flush == Flush::Now {
            self.flush(&mut purged)?;
        }
        Ok(purged)
    }

    /// Drops the entries of claimed pages, without the lock, and settles with the books.
    fn drop_claimed(&self, claimed: &Claimed, purged: &mut Purged) -> Result<(), PurgeError> {
        let mut left = &claimed[..];
        while !left.is_empty() {
            let mut writer = Writer::new(&self.tables);
            // SAFETY: the owners have unmapped these pages, and the claims keep them from new ones.
            let written = unsafe {
                left.iter().try_for_each(|page| writer.unmap(*page)).and_then(|()| writer.issue())
            };
            let done = writer.done() as usize;
            let mut books = self.books.lock();
            let refused = written.err().and_then(|refusal| Some((*left.get(done)?, refusal.errno)));
            let (settled, rest, error) = match refused {
                None => (left, &[][..], None),
                Some((page, errno)) if books.index.is_linked(page) => {
                    let held = self.held(&books, page);
                    (left, &[][..], Some(PurgeError::Refused { held, errno }))
                }
                // Somebody else has dropped it meanwhile, so nothing is amiss. But those behind it
                // are still there.
                Some(_) => {
                    let (settled, rest) = left.split_at(done + 1);
                    (settled, rest, None)
                }
            };
            books.settle(settled, done, self.tables.flushes(), purged);
            left = rest;
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    fn claim(&self, frames: &mut Range<u64>, claimed: &mut Claimed) -> Result<(), PurgeError> {
        let mut books = self.books.lock();
        match books.claim_frames(frames, claimed) {
            Ok(()) => Ok(()),
            Err(page) => Err(PurgeError::InUse(self.held(&books, page))),
        }
    }

    /// Which frame a page in the index maps, and for whom.
    fn held(&self, books: &Books<'_>, page: u32) -> Held {
        let record = books.record(books.index.area(page));
        let (address, name) = (self.tables.address(page), record.name());
        let holder = match record.is_live() {
            true => Holder::Area { address, name },
            false => Holder::Leftover { address, name },
        };
        Held { pfn: books.index.frame(page), holder }
    }
}
