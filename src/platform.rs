//! What the embedding kernel supplies.
//!
//! # Using this crate from another kernel
//!
//! 1. **Xen.** Implement [`hypercall::Xen`] or use `hypercall::RealXen` (feature `real` of that
//!    crate), which calls through the symbol `HYPERCALL_PAGE`. Wrap it in `hypercall::Traced` to
//!    see every call.
//! 2. **P2M.** In PV give [`P2m::table`] the list that the domain builder made
//!    (`start_info.mfn_list`) or a copy of it; this crate keeps it up to date. In PVH use
//!    [`P2m::translated`].
//! 3. **The linear mapping.** Implement [`GuestMemory`](crate::paging::GuestMemory) and
//!    [`LinearMapping`]: where a frame is mapped, which first-level entry maps it, and how to fill
//!    frames with zeros. Every frame that you hand out must have that mapping and no other (S2).
//!    If your kernel leaves page-table entries behind when it unmaps, pass
//!    [`GuestMemory::purge`](crate::paging::GuestMemory::purge) on to a
//!    [`Vmap`](crate::vmap::Vmap) or to what you have in its place.
//! 4. **Frames.** Implement [`Platform`] on top of your frame allocator, or use
//!    [`FrameAllocator`](crate::frames::FrameAllocator) behind a lock of yours. Take the lock
//!    inside the methods only: nothing of yours is held while Xen is asked.
//! 5. **The allocator.** `Allocator::new(platform, GiveBack::Keep)` asks Xen for the order limit,
//!    once. Print its [`capability`](crate::dma::Allocator::capability): it says what is to be had
//!    and why.
//!
//! Suspend the guest only where no call of this crate is under way on any vCPU: frames of a transaction
//! have no entry in the P2M meanwhile, and what has none is not saved.
//!
//! After save and restore, or migration, what was contiguous is not any more (C75). Once the P2M is
//! up to date again, `check_in_place` of buffers, pools and adapters says what moved: make that anew. The
//! toolstack brings the P2M up to date that the guest names in its shared page (`arch.p2m_vaddr`). In a
//! translated guest what devices were told stays true, but what lies beneath it does not:
//! [`Backing::OneExtent`](crate::dma::Backing) says nothing any more, and no guest can see that.
//!
//! The kernel in this repository does all five in `kernel/src/machine.rs` and
//! `kernel/src/paging/mod.rs`; the model in `tests/fake-xen` does it on the host.

use hypercall::Xen;

use crate::exchange::Accounts;
use crate::frames::{Candidate, FrameRun};
use crate::p2m::P2m;
use crate::paging::LinearMapping;

/// The kernel around this component: its Xen, its mapping of memory, its free frames.
///
/// # Safety
/// Duties of the implementor:
/// * all methods speak of one and the same guest, always the same;
/// * [`take`](Self::take) and [`take_where`](Self::take_where) hand out runs that nobody else owns
///   (M1), that nothing but the linear mapping maps (S2), and in which no Rust object lies;
/// * what [`lists`](Self::lists) lends is mapped writable and belongs to no run that was taken (M3).
pub unsafe trait Platform {
    /// The seam to Xen.
    type Xen: Xen;
    /// The linear mapping.
    type Memory: LinearMapping;
    /// Memory for extent lists, given back when dropped.
    type Lists<'p>: AsMut<[u64]>
    where
        Self: 'p;

    /// The seam to Xen.
    fn xen(&self) -> &Self::Xen;

    /// The linear mapping.
    fn memory(&self) -> &Self::Memory;

    /// From guest frames to machine frames.
    fn p2m(&self) -> &P2m<'_>;

    /// Where lost frames are counted.
    fn accounts(&self) -> &Accounts;

    /// Takes a run of `frames` free frames whose first is a multiple of `align`, a power of two.
    fn take(&self, frames: u64, align: u64) -> Option<FrameRun>;

    /// Takes a run of `frames` free frames that `fits` accepts, asking it `budget` times at most.
    /// A kernel that can't search answers `None`; then more is exchanged than needs to be.
    fn take_where(
        &self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(crate::addr::Pfn) -> Candidate,
    ) -> Option<FrameRun>;

    /// Takes a run back as ordinary memory.
    fn give(&self, run: FrameRun);

    /// Lends `words` words for extent lists.
    fn lists(&self, words: u64) -> Option<Self::Lists<'_>>;
}
