//! The machine after boot: what drivers and self-tests work with.

use core::fmt;

use hypercall::Xen;
use hypercall::ops::{MemoryOp, VersionOp};
use hypercall::{DomId, XenErrno};
use spin::{Mutex, Once};
use x86_64::registers::control::Cr3;
use xen_contig::addr::{AddressBits, Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Retain};
use xen_contig::exchange::{Accounts, Capability, ExchangeError, ExchangeOptions, Refiller};
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun, Search};
use xen_contig::p2m::{M2p, P2m};
use xen_contig::platform::Platform;
use xen_contig::vmap::UnmapMode;

use crate::areas::Areas;
use crate::console::say;
use crate::extent::WholeRunExchanger;
use crate::guest::guest;
use crate::hypervisor::Hypervisor;
use crate::layout;
use crate::paging::Linear;
use crate::paging::walk::{self, PageMapping, Visit};
use crate::vcpu::xen;

/// What the boot code found and set up.
pub struct Machine {
    /// True in dom0.
    pub initial_domain: bool,
    /// The table from guest frames to machine frames.
    pub p2m: &'static P2m<'static>,
    /// Xen's M2P, which a PV guest may read.
    pub m2p: Option<M2p>,
    /// The frame of a PV guest's start info.
    pub start_info: Option<Pfn>,
    /// The number of frames with memory. In a PVH guest some frame numbers have none.
    pub memory: u64,
    /// The linear mapping.
    pub linear: &'static Linear,
    /// The virtual areas.
    pub areas: &'static Areas,
    /// The allocator of free frames.
    pub frames: Mutex<FrameAllocator<'static>>,
    /// The count of frames that were lost to failures.
    pub accounts: Accounts,
    /// Which contiguous memory this domain can get.
    pub capability: Capability,
    /// How the exchange is done.
    pub exchange_options: ExchangeOptions,
    /// The kernel's allocator of memory for devices.
    pub dma: Once<Allocator<&'static Machine>>,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", guest().name(), if self.initial_domain { "dom0" } else { "domU" })
    }
}

impl Machine {
    /// Returns the exchange up to the domain's order limit, or `None` in a PVH guest.
    pub fn exchanger(&self) -> Option<WholeRunExchanger<'_, Hypervisor, Linear>> {
        match self.capability {
            Capability::Exchange { limit } => self.exchanger_up_to(limit),
            _ => None,
        }
    }

    /// Returns the exchange up to `limit`, even if Xen permits less; `None` in a PVH guest.
    pub fn exchanger_up_to(
        &self,
        limit: Order,
    ) -> Option<WholeRunExchanger<'_, Hypervisor, Linear>> {
        self.linear.first_table()?;
        // SAFETY: there is one machine, which describes the guest that the kernel runs in. It is a PV
        // guest, since it has first-level tables. All runs come from its frame allocator (rule
        // [M1](xen_contig::rules#M1)).
        let exchanger =
            unsafe { WholeRunExchanger::new(xen(), *self.p2m, self.linear, &self.accounts, limit) };
        Some(exchanger.with_options(self.exchange_options))
    }

    /// Returns the refill up to the domain's order limit, or `None` in a PV guest.
    pub fn refiller(&self) -> Option<Refiller<'_, Hypervisor, Linear>> {
        match self.capability {
            Capability::Refill { limit } => {
                // SAFETY: there is one machine, which describes the guest that the kernel runs in. All
                // runs come from its frame allocator (rule [M1](xen_contig::rules#M1)).
                Some(unsafe { Refiller::new(xen(), self.linear, &self.accounts, limit) })
            }
            _ => None,
        }
    }

    /// Returns the frame of a PV guest's top-level page table.
    pub fn top_table(&self) -> Option<Pfn> {
        let (top, _) = Cr3::read();
        let mfn = Mfn::new(top.start_address().as_u64() / PAGE_SIZE as u64);
        // SAFETY: page tables of this domain lie in RAM.
        unsafe { self.m2p?.pfn(mfn) }
    }

    /// Returns the number of frames that Xen counts for this domain.
    pub fn current_reservation(&self) -> Result<u64, XenErrno> {
        // SAFETY: the call only returns a number.
        unsafe { xen().memory_op(MemoryOp::CurrentReservation(DomId::SELF)) }
    }

    /// Calls `see` with every mapping of the guest, except those of Xen.
    pub fn mappings(&self, mut see: impl FnMut(PageMapping)) {
        walk::visit(self.m2p, self.p2m.frames(), |visit| {
            if let Visit::Page(mapping) = visit {
                see(mapping);
            }
        });
    }

    /// Creates the kernel's allocator of memory for devices. Later calls have no effect.
    pub fn start_dma(&'static self) {
        self.dma.call_once(|| Allocator::new(self, Retain::default()));
    }

    /// Returns the kernel's allocator of memory for devices.
    ///
    /// # Panics
    /// If [`start_dma`](Self::start_dma) was not called before.
    pub fn dma(&self) -> &Allocator<&'static Self> {
        self.dma.get().expect("the kernel starts it at boot")
    }

    /// Takes a run of free frames. If there is none, takes idle memory of the kernel's allocator for devices.
    /// Returns `None` if that is not enough.
    ///
    /// For the kernel and not for the library, which must not be called by
    /// [`Platform::take`](Platform::take).
    ///
    /// The run is aligned to its size, up to 2 MiB. A larger alignment serves no purpose: devices
    /// see the alignment of machine frames, and nested page tables have large pages of 2 MiB.
    pub fn take(&self, frames: u64) -> Option<FrameRun> {
        loop {
            // The reserve gives its memory to this frame allocator, so the lock is released first.
            let run = { self.frames.lock().take(frames, frames.next_power_of_two().min(512)) };
            if run.is_some() || self.dma.get().is_none_or(|dma| dma.reclaim(frames) == 0) {
                return run;
            }
        }
    }

    /// Frees a run.
    ///
    /// # Panics
    /// If one of its frames is free already, because two owners have had it.
    pub fn give(&self, run: FrameRun) {
        if let Err(error) = self.frames.lock().give(run) {
            panic!("{error}");
        }
    }

    /// Takes memory for extent lists. It is freed on drop.
    ///
    /// The memory lies outside all other runs ([M3](xen_contig::rules#M3)).
    pub fn lists(&self, words: u64) -> Option<ListMemory<'_>> {
        let frames = (words * 8).div_ceil(PAGE_SIZE as u64).max(1);
        let run = self.frames.lock().take(frames, 1)?;
        Some(ListMemory { machine: self, run: Some(run) })
    }

    /// Prints what the boot code found.
    pub fn report(&self) {
        let version = xen().xen_version(VersionOp::Version).unwrap_or(0);
        let mut extra = [0; 16];
        let known = xen().xen_version(VersionOp::ExtraVersion(&mut extra)).is_ok();
        let end = extra.iter().position(|byte| *byte == 0).unwrap_or(extra.len());
        let extra = core::str::from_utf8(&extra[..end]).ok().filter(|_| known).unwrap_or("");
        say!(
            "# xen-contig {}: {self} on Xen {}.{}{extra}",
            env!("CARGO_PKG_VERSION"),
            version >> 16,
            version & 0xffff
        );
        let free = self.frames.lock().free_frames();
        say!(
            "# memory: {} MiB ({} frames), {} MiB of it free ({free} frames)",
            self.memory >> 8,
            self.memory,
            free >> 8
        );
        say!("# contiguous memory: {}", self.capability);
        let mode = match self.areas.mode() {
            UnmapMode::Lazy => {
                "lazy: an unmapped area keeps its entries until its frames are needed"
            }
            UnmapMode::Sync => "sync: an area loses its entries when it is unmapped",
        };
        let pages = self.areas.stats().free_pages;
        say!("# virtual areas: {} MiB of addresses; vmap={mode}", pages.div_ceil(256));
    }
}

/// Memory for extent lists. It is freed on drop.
pub struct ListMemory<'m> {
    machine: &'m Machine,
    run: Option<FrameRun>,
}

impl ListMemory<'_> {
    /// Returns the memory as words.
    pub fn words(&mut self) -> &mut [u64] {
        let Some(run) = &self.run else { return &mut [] };
        let words = run.frames() as usize * (PAGE_SIZE / 8);
        // SAFETY: the linear mapping maps the run, which belongs to `self` alone (rule
        // [M1](xen_contig::rules#M1)). Any bytes are valid words. The borrow of `self` keeps the run
        // from being freed while the slice lives.
        unsafe { core::slice::from_raw_parts_mut(layout::linear(run.first()).as_mut_ptr(), words) }
    }
}

impl Drop for ListMemory<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.machine.give(run);
        }
    }
}

impl AsMut<[u64]> for ListMemory<'_> {
    fn as_mut(&mut self) -> &mut [u64] {
        self.words()
    }
}

// SAFETY: there is one machine, so all methods concern the same guest. `take` and `take_where` use
// the frame allocator, which hands out each frame once. The boot code gave it only frames that
// nothing but the linear mapping maps. `lists` takes its memory from the same allocator, so it does
// not lie in another run.
unsafe impl Platform for &Machine {
    type Xen = Hypervisor;
    type Memory = Linear;
    type Linear = Linear;
    type Lock = Mutex<()>;
    type Lists<'p>
        = ListMemory<'p>
    where
        Self: 'p;

    fn xen(&self) -> &Hypervisor {
        xen()
    }

    fn memory(&self) -> &Linear {
        self.linear
    }

    fn linear(&self) -> Option<&Linear> {
        self.linear.first_table().map(|_| self.linear)
    }

    fn p2m(&self) -> &P2m<'_> {
        self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn exchange_options(&self) -> ExchangeOptions {
        self.exchange_options
    }

    fn free_frames(&self) -> u64 {
        self.frames.lock().free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.frames.lock().take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.frames.lock().take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        Machine::give(self, run);
    }

    fn on_set_aside(&self, _: Pfn, error: &ExchangeError) {
        say!("# set aside: Xen refuses this frame for now, and is asked again later: {error}");
    }

    fn lists(&self, words: u64) -> Option<ListMemory<'_>> {
        Machine::lists(self, words)
    }
}

/// Returns the address of a word of a frame, through the linear mapping.
///
/// # Safety
/// The linear mapping maps the frame, and `index` is below 512.
pub unsafe fn word(pfn: Pfn, index: usize) -> *mut u64 {
    // SAFETY: by this function's contract the word lies within a mapped frame.
    unsafe { layout::linear(pfn).as_mut_ptr::<u64>().add(index) }
}

/// An address limit that permits every address.
pub const ANYWHERE: AddressBits = AddressBits::UNLIMITED;
