//! What the embedding kernel supplies.
//!
//! # Using this crate from another kernel
//!
//! 1. **Xen.** Use `hypercall::RealXen` (feature `real`), which calls through the symbol
//!    `HYPERCALL_PAGE`, or implement [`hypercall::Xen`]. Wrap it in `hypercall::Traced` to see every
//!    call.
//! 2. **P2M.** In PV give [`P2m::table`] the list that the domain builder made (`start_info.mfn_list`)
//!    or a copy of it. This crate keeps it up to date. In PVH use [`P2m::translated`].
//! 3. **Memory.** Implement [`GuestMemory`]: where a frame is mapped, and how to fill frames with zeros.
//!    If your kernel unmaps lazily, implement [`GuestMemory::purge`] too: it drops the page-table
//!    entries that remain. [`Vmap`](crate::vmap::Vmap) does that for its areas.
//! 4. **The linear mapping**, in PV: implement [`LinearMapping`] on the same type. It says which
//!    first-level entry maps a frame. Every frame that you hand out must have that mapping and no other
//!    ([S2](crate::rules#S2)). In PVH there is nothing to implement: the type is [`NoLinearMapping`].
//!    Before you call [`make_contiguous`](crate::dma::Allocator::make_contiguous), see that
//!    [`LinearMapping::check_unreferenced`] names each frame that something else references: Xen does
//!    not check it.
//! 5. **Frames.** Implement [`Platform`] on top of your frame allocator, or use
//!    [`FrameAllocator`](crate::frames::FrameAllocator) under a lock of yours.
//! 6. **The allocator.** `Allocator::new(platform, Retain::default())` asks Xen once for the order limit.
//!    Print its [`capability`](crate::dma::Allocator::capability): it says which memory this domain
//!    can get, and why.
//!
//! Suspend the guest only while no call of this crate runs on any vCPU. Frames of a transaction have no
//! entry in the P2M, and the toolstack does not save frames without an entry.
//!
//! After save and restore, or migration, memory that was contiguous no longer is
//! ([C75](crate::conformance#C75)). Once the P2M is up to date again, `check_in_place` of buffers, pools
//! and adapters says what moved. Allocate that anew. The toolstack brings the P2M up to date that the
//! guest names in its shared page (`arch.p2m_vaddr`). In a translated guest, the addresses that devices
//! received stay true, but other machine memory backs them.
//! [`Backing::OneExtent`](crate::dma::Backing) then no longer holds, and no guest can see that.
//!
//! The kernel in this repository does all of this in `kernel/src/machine.rs` and
//! `kernel/src/paging/linear.rs`; the model in `tests/fake-xen` does it on the host.
//!
//! # Locks
//! The allocator has one lock, that of its reserve ([`Platform::Lock`]). Under it the allocator calls
//! [`GuestMemory::load`] and [`GuestMemory::store`], which reach its records, and no other method. If
//! interrupt handlers allocate or drop buffers, these two run there, too. They must not call this crate,
//! and must not wait for a lock that is held during a call of this crate. The same holds for
//! [`GuestMemory::pointer`], which their defaults call.
//!
//! This crate holds no lock while it calls any other method of [`Platform`], [`GuestMemory`] or
//! [`LinearMapping`]. Take the lock of your frame allocator inside the methods, and release it before
//! they return: a transaction makes hypercalls that take milliseconds.
//!
//! An allocation that must not sleep, and the drop of a buffer, never reach your frame allocator. They
//! call [`Platform::xen`], [`Platform::p2m`], [`Platform::memory`], [`GuestMemory::zero`] and the three
//! methods above.
//!
//! The closure that [`Platform::take_where`] receives may run under the lock of your frame allocator. It
//! reads the P2M and compares addresses. It takes no lock, makes no hypercall and calls no method of the
//! platform.

use core::fmt;

use hypercall::Xen;

use crate::addr::Pfn;
use crate::exchange::{Accounts, ExchangeError, ExchangeOptions};
use crate::frames::{Candidate, FrameRun, Search};
use crate::p2m::P2m;
#[cfg(doc)]
use crate::paging::NoLinearMapping;
use crate::paging::{GuestMemory, LinearMapping};

/// The kernel around this crate: its Xen, its memory, its free frames.
///
/// # Safety
/// The implementor promises:
/// * all methods describe one and the same guest, the one that the program runs in, always;
/// * [`take`](Self::take) and [`take_where`](Self::take_where) hand out runs that nothing else owns
///   ([M1](crate::rules#M1)), that only the linear mapping maps ([S2](crate::rules#S2)), and in which
///   no Rust object lies. They have exactly the number of frames that was asked for;
/// * the memory that [`lists`](Self::lists) lends is mapped writable and belongs to no run that was
///   taken ([M3](crate::rules#M3)).
pub unsafe trait Platform {
    /// The hypervisor.
    type Xen: Xen;
    /// The guest's memory.
    type Memory: GuestMemory;
    /// The linear mapping of a PV guest. A kernel for PVH alone names [`NoLinearMapping`].
    type Linear: LinearMapping;
    /// The lock of the reserve, such as `spin`'s (feature `lock_api` of that crate).
    ///
    /// It is held for a bounded number of steps ([`Stats::longest_hold`](crate::dma::Stats)), and never
    /// while a method of the platform or a hypercall runs. If interrupt handlers allocate or drop buffers,
    /// the lock must mask interrupts while it is held.
    type Lock: lock_api::RawMutex + Send + Sync;
    /// Memory for extent lists, returned when dropped.
    type Lists<'p>: AsMut<[u64]>
    where
        Self: 'p;

    /// Returns the hypervisor.
    fn xen(&self) -> &Self::Xen;

    /// Returns the guest's memory.
    fn memory(&self) -> &Self::Memory;

    /// Returns the linear mapping in a PV guest, and `None` in a translated one.
    fn linear(&self) -> Option<&Self::Linear>;

    /// Returns the map from guest frames to machine frames.
    fn p2m(&self) -> &P2m<'_>;

    /// Returns the accounts of lost frames.
    fn accounts(&self) -> &Accounts;

    /// Returns how the exchange works. The default is right for every Xen.
    ///
    /// A kernel that asks Xen once for its version ([`Scrub::ask`](crate::exchange::Scrub::ask)) and
    /// answers with it saves the zeroing of what goes to Xen. Called for each request.
    fn exchange_options(&self) -> ExchangeOptions {
        ExchangeOptions::default()
    }

    /// Returns the number of free frames, in all runs together.
    fn free_frames(&self) -> u64;

    /// Takes a run of `frames` free frames, the first of which is a multiple of `align`, a power of two.
    ///
    /// `frames` is at least 1 and at most 262,144 for one buffer, `align` at most 512. Returns `None` if
    /// there is no such run; it must not wait for memory, because another call of this crate may hold it.
    fn take(&self, frames: u64, align: u64) -> Option<FrameRun>;

    /// Takes a run of `frames` free frames that `fits` accepts, if one begins in the next part of the free
    /// frames, at `from` or after. Calls `fits` with the first frame of a free run each time.
    ///
    /// One call searches a bounded part, so that the lock of the frame allocator is held for a short time;
    /// the library calls again with the frame that [`Search::Continue`] names, until the answer is
    /// [`Search::End`]. `fits` may run under that lock (see [Locks](self#locks)). If it answers
    /// [`Candidate::TryFrom`], no run that begins before that frame fits.
    ///
    /// A kernel that cannot search returns [`Search::End`] at once. Then the library takes runs by
    /// [`take`](Self::take) and tries whether they fit.
    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search;

    /// Takes a run back as ordinary memory. It holds nothing of another domain.
    ///
    /// The run can be any piece of a run that was taken: an allocation of 3 frames takes 4 and gives 1
    /// back at once. It is never empty, and pieces of different runs are never joined. An allocator that
    /// frees by power-of-two blocks must cut a piece into such blocks.
    fn give(&self, run: FrameRun);

    /// Reports a frame that Xen refused to take, once. `error` says what references it, if the kernel can
    /// tell.
    ///
    /// The reserve sets the frame aside and goes on with others; a later trim offers it again. The call
    /// comes from an allocation or a trim that may sleep. The default does nothing.
    fn on_set_aside(&self, _pfn: Pfn, _error: &ExchangeError) {}

    /// Reports a buffer that its driver still had when the device was dropped, once. Its frames are leaked,
    /// because the device may still write to them.
    ///
    /// `device` is the [`DeviceName`](crate::dma::DeviceName), `buffer` the
    /// [`LiveBuffer`](crate::dma::LiveBuffer). The call comes from the drop of a
    /// [`Device`](crate::dma::Device), so it must not panic. The default does nothing.
    fn on_leaked_buffer(&self, _device: &dyn fmt::Display, _buffer: &dyn fmt::Display) {}

    /// Lends at least `words` words for extent lists, or returns `None` if the kernel has no memory. A
    /// shorter list counts as none.
    ///
    /// A word has 8 bytes. The library asks for at most two words per frame: at most 524,288 words, which
    /// are 4 MiB, to return 1 GiB or to make it contiguous in place. The content does not matter. The
    /// library drops the value at the end of the same call.
    fn lists(&self, words: u64) -> Option<Self::Lists<'_>>;
}
