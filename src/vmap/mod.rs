//! Virtual areas over scattered frames, and a purge that drops the aliases of one run.
//!
//! * [`Vmap::vmap`] maps frames side by side; [`Vmap::vunmap`] unmaps them.
//! * [`Vmap::purge`] drops the entries of unmapped areas that still map frames of one run;
//!   [`Vmap::purge_all`] drops all such entries.
//! * [`AreaTables`] is the stretch of addresses that the embedding kernel sets aside, with its
//!   first-level tables.
//! * [`VmapMemory`] is the memory of the registry.
//!
//! # Lazy and sync
//! It takes a hypercall and a flush of every vCPU to unmap an area. [`UnmapMode::Lazy`] postpones both. The
//! entries stay as *leftovers* until an exchange needs the frames, or until there are more leftovers
//! than the [`Budget`] allows. [`UnmapMode::Sync`] does both at once. Most kernels are lazy, so an exchange
//! meets frames that are still mapped although their mapping has no user. Xen refuses to exchange a
//! frame while any entry refers to it ([S4](crate::rules#S4)).
//!
//! # The alias index
//! The index answers which addresses map a frame. Each page of the stretch has a [`PageSlot`], and each
//! frame of the guest has a list of the slots that map it. So a purge of a run visits the run's frames
//! and their aliases and nothing else. The index takes 4 bytes per frame of the guest, and 16 bytes and
//! one bit per page of the stretch. To map a page takes one list insertion, to drop it one removal, no
//! matter how many aliases the frame has.
//!
//! # Flushes
//! A purge with [`Flush::Inhibit`] makes no flush, and Xen makes none for it
//! ([F1](crate::rules#F1)). A TLB may still remember the addresses that it freed, so
//! they are *retired*. The registry keeps the time of the [`FlushClock`](crate::paging::FlushClock) at
//! which their last entry was dropped. A virtual address is reused only after every TLB was flushed
//! since its last page-table entry was removed. `AddressPool::reuse` is the only way from retired
//! addresses to free ones, and it asks the clock whether such a flush is complete. Only a flush
//! advances the clock. The flush of a transaction serves as well ([F2](crate::rules#F2),
//! [F5](crate::rules#F5)); a flush is made for the addresses alone only if none are free.
//!
//! # Locks
//! One lock guards the registry, and it is never held during a hypercall. A vCPU claims pages under the
//! lock, drops their entries without it, and then removes the pages under it again. An area is not
//! retired while one of its pages is claimed, so a late write cannot hit an address with a new owner.
//!
//! A purge takes a constant number of steps for each frame of the run and for each of their aliases. One
//! hold of the lock covers at most 512 frames and 513 aliases. [`Vmap::purge_all`] visits at most 4,096
//! pages per hold.
//!
//! # What it costs
//! These are the hypercalls of a PV guest. A translated guest writes its entries itself and asks Xen for
//! the flushes alone.
//!
//! | operation | hypercalls | flushes |
//! |---|---|---|
//! | [`Vmap::vmap`] of *n* pages | *n*/512, rounded up | none, or 1 if no addresses or records are free |
//! | [`Vmap::vunmap`], lazy | none; past the budget those of [`Vmap::purge_all`] | none |
//! | [`Vmap::vunmap`], sync | *n*/512, rounded up, and the flush | 1 |
//! | [`Vmap::purge`] of a run with *a* aliases | *a*/512, rounded up for each 512 frames | none, or 1 with [`Flush::Now`] |
//! | [`Vmap::purge_all`] of *a* leftovers | *a*/512, rounded up; at most one more per 4,096 pages of their areas | none, or 1 with [`Flush::Now`] |
//!
//! # In your own kernel
//! 1. Set a stretch of addresses aside, with empty first-level tables that every address space
//!    shares, and implement [`AreaTables`] for it.
//! 2. Lend [`VmapSizes::bytes`] bytes to the registry for good: [`VmapMemory::place`].
//! 3. Forward [`GuestMemory::purge`](crate::paging::GuestMemory::purge) to [`Vmap::vacate`] and
//!    [`GuestMemory::holder`](crate::paging::GuestMemory::holder) to [`Vmap::holder`]. Make all flushes
//!    of the domain by one [`FlushClock`](crate::paging::FlushClock).
//!
//! ```
//! use hypercall::{VirtAddr, Xen};
//! use xen_contig::addr::{Gfn, Pfn};
//! use xen_contig::paging::FlushClock;
//! use xen_contig::sync::AtomicU64;
//! use xen_contig::vmap::{
//!     AreaEntry, AreaTables, Budget, Flush, Protection, UnmapMode, Vmap, VmapError, VmapMemory, VmapSizes,
//! };
//!
//! /// 512 pages of addresses of a translated guest, mapped by one first-level table.
//! struct Tables<'k, X> {
//!     xen: &'k X,
//!     flushes: &'k FlushClock,
//!     level1: &'k [AtomicU64],
//!     frames: u64,
//! }
//!
//! // SAFETY: the table has no other user. It was hooked in for this address in every address space. The
//! // clock is the one that the transactions use.
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
//!     // In a PV guest the P2M answers: `self.p2m.gfn(pfn)`.
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
//!     // In a PV guest `AreaEntry::validated` and the machine address of the entry.
//!     fn entry(&self, page: u32) -> AreaEntry<'_> {
//!         AreaEntry::plain(&self.level1[page as usize])
//!     }
//! }
//!
//! /// Maps two frames side by side, and leaves the entries until the frames are needed.
//! fn visit<T: AreaTables>(areas: &Vmap<'_, T>) -> Result<(), VmapError> {
//!     let frames = [Pfn::new(9), Pfn::new(4)];
//!     // SAFETY: the frames belong to this function until it has unmapped the area.
//!     let area = unsafe { areas.vmap(frames, Protection::ReadOnly, "an example")? };
//!     let _two_pages = (area.pointer(), area.len());
//!     areas.vunmap(area)
//! }
//!
//! # let guest = fake_xen::GuestBuilder::new(64).translated().build();
//! # let (xen, clock) = (guest.xen(), FlushClock::translated());
//! # let level1: Vec<AtomicU64> = (0..512).map(|_| AtomicU64::new(0)).collect();
//! let tables = Tables { xen, flushes: &clock, level1: &level1, frames: 64 };
//! let sizes = VmapSizes { frames: 64, pages: tables.pages(), areas: 16 };
//! # let mut block = vec![0_u64; sizes.bytes().div_ceil(8)];
//! # let block = block.as_mut_ptr().cast();
//! // SAFETY: the block has `sizes.bytes()` bytes and is aligned to 8. It has no other user while the
//! // areas exist.
//! let memory = unsafe { VmapMemory::place(block, sizes) };
//! let budget = Budget { pages: 448, areas: 14 };
//! let areas = Vmap::new(tables, memory, UnmapMode::Lazy, budget)?;
//!
//! visit(&areas)?;
//! assert_eq!(areas.stats().leftover.pages, 2);
//! // An exchange of these frames purges them first, by `GuestMemory::purge`.
//! assert_eq!(areas.purge_all(Flush::Inhibit)?.aliases, 2);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod addresses;
mod alias_index;
mod area;
mod areas;
mod error;
mod options;
mod purge;
mod record;
mod registry;
mod report;
mod storage;
mod tables;
mod writer;

pub use alias_index::PageSlot;
pub use area::Area;
pub use areas::Vmap;
pub use error::VmapError;
pub use options::{Budget, Flush, Protection, UnmapMode};
pub use record::AreaRecord;
pub use report::{Alias, AreaCount, Purged, VmapStats};
pub use storage::{VmapMemory, VmapSizes};
pub use tables::{AreaEntry, AreaTables};
