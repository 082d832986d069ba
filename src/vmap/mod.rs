//! Virtual areas over scattered frames, and a purge of exactly those aliases that are in the way.
//!
//! * [`Vmap::vmap`] maps frames side by side, [`Vmap::vunmap`] ends it;
//! * [`Vmap::purge`] drops what unmapped areas left behind of the frames of one run,
//!   [`Vmap::purge_all`] all that is left behind;
//! * [`AreaTables`]: the stretch of addresses that the embedding kernel sets aside, and its
//!   first-level tables;
//! * [`Memory`]: where the books are kept.
//!
//! # Lazy and sync
//! To unmap an area takes a hypercall and a flush of every vCPU. [`Mode::Lazy`] puts both off: the
//! entries stay, as *leftovers*, until somebody needs the frames for an exchange, or until there
//! are more of them than the [`Budget`] allows. [`Mode::Sync`] does both at once. Lazy is what most
//! kernels do, and why an exchange meets frames that are mapped although nobody uses the mapping:
//! Xen refuses a frame as long as any entry refers to it.
//!
//! # The alias index
//! Which addresses map a frame? Each page of the stretch has a [`Slot`], each frame of the guest a
//! list of the slots that map it. So a purge of a run looks at its frames and at their aliases and
//! at nothing else, whatever is outstanding elsewhere. What that costs: 4 bytes per frame of the
//! guest, and per page of the stretch 16 bytes and a bit; to map a page one list insertion, to drop
//! it one removal, however many aliases the frame has.
//!
//! # Who flushes
//! A purge with [`Flush::Inhibit`] flushes nothing, nor does Xen beneath it (see
//! [`PteBatch`](crate::paging::PteBatch)). The addresses that it freed could still be
//! remembered by some vCPU, so they are *retired*: with the time of the
//! [`FlushClock`](crate::paging::FlushClock) at which their last entry was gone. The only way from
//! there back to the free addresses is `Space::reuse`, which asks the clock whether a flush of all
//! vCPUs has begun after that time and is over; the clock can't be advanced but by such a flush.
//! So no address is handed out again before a flush has covered it, by construction. Whose flush it
//! was does not matter: the one at the end of a transaction's detach serves. Only where addresses
//! run out is one made for their sake.
//!
//! # Locks
//! One lock guards the books. It is never held across a hypercall: entries to be dropped are
//! claimed under the lock, dropped without it, and taken off the books under it again. An area is
//! not retired while anybody has a claim on one of its pages, so that no late write can hit an
//! address that has a new owner.
//!
//! # What it costs
//! In a PV guest; a translated guest writes its entries itself and makes only the flushes.
//!
//! | operation | hypercalls | flushes |
//! |---|---|---|
//! | [`Vmap::vmap`] of *n* pages | *n*/512, rounded up | none, unless addresses or records ran out: 1 |
//! | [`Vmap::vunmap`], lazy | none; past the budget those of [`Vmap::purge_all`] | none |
//! | [`Vmap::vunmap`], sync | *n*/512, rounded up, and the flush | 1 |
//! | [`Vmap::purge`] of a run with *a* aliases | *a*/512, rounded up for each 512 frames | none, or 1 with [`Flush::Now`] |
//! | [`Vmap::purge_all`] of *a* leftovers | *a*/512, rounded up | likewise |
//!
//! # In your own kernel
//! 1. Set a stretch of addresses aside, with empty first-level tables that every address space
//!    shares, and implement [`AreaTables`] for it.
//! 2. Lend the books [`Sizes::bytes`] bytes for good: [`Memory::place`].
//! 3. Pass [`GuestMemory::purge`](crate::paging::GuestMemory::purge) on to [`Vmap::vacate`] and
//!    [`GuestMemory::holder`](crate::paging::GuestMemory::holder) to [`Vmap::holder`]. Leave it to
//!    one [`FlushClock`](crate::paging::FlushClock) to make all flushes of the domain.
//!
//! ```
//! use hypercall::{VirtAddr, Xen};
//! use xen_contig::addr::{Gfn, Pfn};
//! use xen_contig::paging::FlushClock;
//! use xen_contig::sync::AtomicU64;
//! use xen_contig::vmap::{
//!     AreaTables, Budget, Entry, Flush, Memory, Mode, Protection, Sizes, Vmap, VmapError,
//! };
//!
//! /// 512 pages of addresses of a translated guest, beneath one first-level table.
//! struct Tables<'k, X> {
//!     xen: &'k X,
//!     flushes: &'k FlushClock,
//!     level1: &'k [AtomicU64],
//!     frames: u64,
//! }
//!
//! // SAFETY: nobody else uses the table, which was hooked in below this address in every address
//! // space; the clock is the one that the transactions use, too.
//! unsafe impl<X: Xen> AreaTables for Tables<'_, X> {
//!     type Xen = X;
//!
//!     fn xen(&self) -> &X {
//!         self.xen
//!     }
//!
//!     fn flushes(&self) -> &FlushClock {
//!         self.flushes
//!     }
//!
//!     // In a PV guest the P2M's word: `self.p2m.gfn(pfn)`.
//!     fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
//!         (pfn.number() < self.frames).then(|| Gfn::new(pfn.number()))
//!     }
//!
//!     fn base(&self) -> VirtAddr {
//!         VirtAddr::new(0xffff_c980_0000_0000)
//!     }
//!
//!     fn pages(&self) -> u32 {
//!         self.level1.len() as u32
//!     }
//!
//!     // In a PV guest `Entry::Validated` and the machine address of the entry.
//!     fn entry(&self, page: u32) -> Entry<'_> {
//!         Entry::Plain(&self.level1[page as usize])
//!     }
//! }
//!
//! /// Shows two frames side by side, and leaves the rest to whoever needs the frames.
//! fn show<T: AreaTables>(areas: &Vmap<'_, T>) -> Result<(), VmapError> {
//!     let area = areas.vmap([Pfn::new(9), Pfn::new(4)], Protection::ReadOnly, "an example")?;
//!     let _two_pages = (area.pointer(), area.len());
//!     if let Err(error) = areas.vunmap(area) {
//!         // The frames are ours again all the same; an exchange of them would be told.
//!         eprintln!("{error}");
//!     }
//!     Ok(())
//! }
//!
//! # let guest = fake_xen::Builder::new(64).translated().build();
//! # let (xen, clock) = (guest.xen(), FlushClock::translated());
//! # let level1: Vec<AtomicU64> = (0..512).map(|_| AtomicU64::new(0)).collect();
//! let tables = Tables { xen, flushes: &clock, level1: &level1, frames: 64 };
//! let sizes = Sizes { frames: 64, pages: tables.pages(), areas: 16 };
//! # let mut block = vec![0_u64; sizes.bytes().div_ceil(8)];
//! # let block = block.as_mut_ptr().cast();
//! // SAFETY: the block has so many bytes, is aligned to 8, and is lent for as long as the books are.
//! let memory = unsafe { Memory::place(block, sizes) };
//! let budget = Budget { pages: 448, areas: 14 };
//! let areas = Vmap::new(tables, memory, Mode::Lazy, budget);
//!
//! show(&areas)?;
//! assert_eq!(areas.stats().leftover.pages, 2);
//! // What an exchange of these frames does first, by way of `GuestMemory::purge`; here for all.
//! assert_eq!(areas.purge_all(Flush::Inhibit)?.aliases, 2);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod area;
mod books;
mod error;
mod index;
mod memory;
mod purge;
mod space;
mod tables;
mod words;

use core::sync::atomic::Ordering::Relaxed;

use hypercall::Xen;
use hypercall::ops::SchedOp;

use crate::addr::{PAGE_SIZE, Pfn};
use crate::paging::Holder;
use crate::sync::{AtomicBool, Mutex};
use books::Books;
use space::Space;
use tables::Writer;

pub use area::{Area, Record};
pub use error::{PurgeError, UnmapError, VmapError};
pub use index::Slot;
pub use memory::{Memory, Sizes};
pub use purge::Purged;
pub use tables::{AreaTables, Entry};
pub use words::{Alias, Budget, Count, Flush, Mode, Protection, Stats};

/// The virtual areas of a guest.
#[derive(Debug)]
pub struct Vmap<'m, T> {
    tables: T,
    sync: AtomicBool,
    budget: Budget,
    /// Frames that the index has room for.
    frames: u64,
    books: Mutex<Books<'m>>,
}

impl<'m, T: AreaTables> Vmap<'m, T> {
    /// No areas yet, in the stretch of addresses that `tables` describes.
    ///
    /// # Panics
    /// If the memory is for another number of pages than the stretch has.
    pub fn new(tables: T, memory: Memory<'m>, mode: Mode, budget: Budget) -> Self {
        let (pages, frames) = (tables.pages(), memory.heads.len() as u64);
        let sync = AtomicBool::new(mode == Mode::Sync);
        Self { tables, sync, budget, frames, books: Mutex::new(Books::new(memory, pages)) }
    }

    /// The page tables.
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// When entries go.
    pub fn mode(&self) -> Mode {
        if self.sync.load(Relaxed) { Mode::Sync } else { Mode::Lazy }
    }

    /// Has entries go at another time from now on. What is left behind already stays so.
    pub fn set_mode(&self, mode: Mode) {
        self.sync.store(mode == Mode::Sync, Relaxed);
    }

    /// What may be left behind.
    pub const fn budget(&self) -> Budget {
        self.budget
    }

    /// What there is.
    pub fn stats(&self) -> Stats {
        self.books.lock().stats()
    }

    /// Shows every alias of a frame. The areas are locked meanwhile: `see` must not call back.
    pub fn aliases(&self, pfn: Pfn, mut see: impl FnMut(Alias)) {
        let books = self.books.lock();
        for page in books.index.aliases(pfn) {
            let record = books.record(books.index.area(page));
            let address = self.tables.address(page);
            see(Alias { address, name: record.name(), live: record.is_live() });
        }
    }

    /// Who has hold of a frame, as far as the areas know.
    pub fn holder(&self, pfn: Pfn) -> Option<Holder> {
        let mut holder = None;
        self.aliases(pfn, |Alias { address, name, live }| match (live, holder) {
            (true, _) => holder = Some(Holder::Area { address, name }),
            (false, None) => holder = Some(Holder::Leftover { address, name }),
            (false, Some(_)) => {}
        });
        holder
    }

    /// Maps frames side by side, with an unmapped guard page behind them. `name` is who does it:
    /// whom an exchange of these frames is told of.
    ///
    /// The frames stay the caller's, who sees to it that they are not given up while the area
    /// lives. One frame may be in any number of areas.
    ///
    /// # Errors
    /// Why not; nothing is mapped then.
    pub fn vmap<F>(
        &self,
        frames: F,
        protection: Protection,
        name: &'static str,
    ) -> Result<Area, VmapError>
    where
        F: IntoIterator<Item = Pfn>,
        F::IntoIter: Clone,
    {
        let frames = frames.into_iter();
        let count = frames.clone().count();
        let limit = Space::largest(self.tables.pages());
        let pages = match u32::try_from(count) {
            Ok(0) => return Err(VmapError::Empty),
            Ok(pages) if pages <= limit => pages,
            _ => return Err(VmapError::TooLarge { pages: count, limit }),
        };
        let unfit = |pfn: &Pfn| pfn.number() >= self.frames || self.tables.gfn(*pfn).is_none();
        if let Some(pfn) = frames.clone().find(unfit) {
            return Err(VmapError::NotPopulated { pfn });
        }
        let area = self.open(pages, name)?;
        match self.fill(&area, frames, protection) {
            Ok(()) => {
                self.books.lock().set_live(&area);
                Ok(area)
            }
            Err(error) => {
                let id = area.id();
                self.books.lock().abandon(area, self.tables.flushes());
                // What can't be dropped stays on the books as a leftover, for the next purge.
                let _refused_again = self.purge_area(id, &mut Purged::default());
                Err(error)
            }
        }
    }

    /// Ends an area: at once, or when the frames are needed. Its frames are the caller's alone
    /// again either way, and nothing may be accessed at its addresses any more.
    ///
    /// # Errors
    /// An area of another `Vmap` comes back in the error. Otherwise the area is unmapped as far as
    /// the caller is concerned, and the error tells why entries could not be dropped: they stay on
    /// the books, and the next purge tries them again.
    pub fn vunmap(&self, area: Area) -> Result<(), UnmapError> {
        // Areas of another stretch may well have the same numbers.
        if area.address() != self.tables.address(area.page_numbers().start) {
            return Err(UnmapError::Unknown(area));
        }
        let id = area.id();
        let over = {
            let mut books = self.books.lock();
            books.close(area).map_err(UnmapError::Unknown)?;
            books.is_over(self.budget)
        };
        let mut purged = Purged::default();
        match self.mode() {
            Mode::Sync => {
                self.purge_area(id, &mut purged)?;
                self.flush(&mut purged)?;
            }
            Mode::Lazy if over => {
                self.purge_all(Flush::Inhibit)?;
            }
            Mode::Lazy => {}
        }
        Ok(())
    }

    /// Addresses for an area, and its place in the books.
    fn open(&self, pages: u32, name: &'static str) -> Result<Area, VmapError> {
        loop {
            let stats = {
                let mut books = self.books.lock();
                books.reuse(self.tables.flushes());
                let address = |page| self.tables.address(page);
                if let Some(area) = books.open(pages, name, address) {
                    return Ok(area);
                }
                books.stats()
            };
            // What can be freed is, and others may get it. There is no room when there is nothing.
            let Stats { live, leftover, retired, free_pages } = stats;
            if retired.areas > 0 {
                self.flush(&mut Purged::default()).map_err(VmapError::Purge)?;
            } else if leftover.areas > 0 {
                let purged = self.purge_all(Flush::Inhibit).map_err(VmapError::Purge)?;
                if purged.areas == 0 {
                    // Somebody else is just dropping it, on a vCPU that may want this processor.
                    let _never_refused = self.tables.xen().sched_op(SchedOp::Yield);
                }
            } else {
                return Err(VmapError::NoSpace { pages, free: free_pages, areas: live.areas });
            }
        }
    }

    /// Writes the entries of a new area.
    fn fill(
        &self,
        area: &Area,
        frames: impl Iterator<Item = Pfn> + Clone,
        protection: Protection,
    ) -> Result<(), VmapError> {
        let mut writer = Writer::new(&self.tables);
        let mut next = frames.clone();
        let mut write = |page: u32, pfn: Pfn| -> Result<(), VmapError> {
            let gfn = self.tables.gfn(pfn).ok_or(VmapError::NotPopulated { pfn })?;
            // On the books first: an entry that nobody knows of would never be purged.
            self.books.lock().link(page, pfn, area.id());
            // SAFETY: the addresses are the new area's alone; nothing of Rust's lies there.
            unsafe { writer.map(page, gfn, protection.flags()) }.map_err(|refusal| {
                let pfn = frames.clone().nth(refusal.index as usize).unwrap_or(pfn);
                VmapError::Refused { pfn, errno: refusal.errno }
            })
        };
        for page in area.page_numbers() {
            let Some(pfn) = next.next() else { break };
            write(page, pfn)?;
        }
        // SAFETY: as above.
        unsafe { writer.issue() }.map_err(|refusal| {
            let pfn = frames.clone().nth(refusal.index as usize).unwrap_or(Pfn::new(0));
            VmapError::Refused { pfn, errno: refusal.errno }
        })
    }

    /// One flush of all vCPUs, after which addresses that waited for it are free.
    fn flush(&self, purged: &mut Purged) -> Result<(), PurgeError> {
        let clock = self.tables.flushes();
        clock.flush_all(self.tables.xen()).map_err(|errno| PurgeError::Flush { errno })?;
        purged.flushed = true;
        self.books.lock().reuse(clock);
        Ok(())
    }
}

/// Bytes of a page of an area.
pub const PAGE: usize = PAGE_SIZE;
