//! The machine as the rest of the kernel sees it, once it has booted.

use core::fmt;

use hypercall::Xen;
use hypercall::ops::{MemoryOp, VersionOp};
use hypercall::{DomId, XenErrno};
use spin::Mutex;
use x86_64::registers::control::Cr3;
use xen_contig::addr::{AddressBits, Mfn, Order, PAGE_SIZE, Pfn};
use xen_contig::exchange::{Accounts, Capability, Refiller};
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun};
use xen_contig::p2m::{M2p, P2m};
use xen_contig::platform::Platform;
use xen_contig::vmap::Mode;

use super::areas::Areas;
use super::extent::ExtentExchanger;
use super::hypervisor::{Hypervisor, xen};
use super::kind::Kind;
use super::paging::Linear;
use super::{layout, say};

/// What booting leaves behind.
pub struct Machine {
    /// PV or PVH.
    pub kind: Kind,
    /// Whether this is dom0.
    pub initial_domain: bool,
    /// From guest frames to machine frames.
    pub p2m: &'static P2m<'static>,
    /// Xen's word on machine frames; PV alone may read it.
    pub m2p: Option<M2p>,
    /// The frame of a PV guest's start info, as the builder left it.
    pub start_info: Option<Pfn>,
    /// Where a translated guest has the page that Xen shares with it.
    pub shared_page: Option<Pfn>,
    /// The linear mapping.
    pub linear: &'static Linear,
    /// The virtual areas.
    pub areas: &'static Areas,
    /// Free frames.
    pub frames: Mutex<FrameAllocator<'static>>,
    /// Frames lost to failures.
    pub accounts: Accounts,
    /// What contiguous memory is to be had.
    pub capability: Capability,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Pv => "PV",
            Kind::Pvh => "PVH",
        };
        write!(f, "{kind} {}", if self.initial_domain { "dom0" } else { "domU" })
    }
}

impl Machine {
    /// The exchange, as far as the domain's limit. `None` in a translated guest.
    pub fn exchanger(&self) -> Option<ExtentExchanger<'_, Hypervisor, Linear>> {
        match self.capability {
            Capability::Exchange { limit } => self.exchanger_up_to(limit),
            _ => None,
        }
    }

    /// The exchange as far as `limit`, whatever Xen permits. `None` in a translated guest.
    pub fn exchanger_up_to(&self, limit: Order) -> Option<ExtentExchanger<'_, Hypervisor, Linear>> {
        self.linear.first_table()?;
        // SAFETY: there is one machine, and it describes the guest that the kernel runs in. A PV one:
        // it has first-level tables. Runs come from its frame allocator
        // ([M1](xen_contig::rules#M1)).
        Some(unsafe { ExtentExchanger::new(xen(), *self.p2m, self.linear, &self.accounts, limit) })
    }

    /// The refill, as far as the domain's limit. `None` in a PV guest.
    pub fn refiller(&self) -> Option<Refiller<'_, Hypervisor, Linear>> {
        match self.capability {
            Capability::Refill { limit } => {
                // SAFETY: there is one machine, and it describes the guest that the kernel runs in.
                // Runs come from its frame allocator ([M1](xen_contig::rules#M1)).
                Some(unsafe { Refiller::new(xen(), self.linear, &self.accounts, limit) })
            }
            _ => None,
        }
    }

    /// The frame of a PV guest's top-level page table.
    pub fn top_table(&self) -> Option<Pfn> {
        let (top, _) = Cr3::read();
        let mfn = Mfn::new(top.start_address().as_u64() / PAGE_SIZE as u64);
        // SAFETY: a page table is RAM.
        unsafe { self.m2p?.pfn(mfn) }
    }

    /// How many frames Xen has on record for this domain.
    pub fn current_reservation(&self) -> Result<u64, XenErrno> {
        // SAFETY: asks for a number.
        unsafe { xen().memory_op(MemoryOp::CurrentReservation(DomId::SELF)) }
    }

    /// Takes a run aligned to its size or to 2 MiB, whichever is less; `None` where the guest has
    /// none. It is the machine frames whose alignment devices see; guest frames need no more than
    /// a superpage of the nested page tables does.
    pub fn take(&self, frames: u64) -> Option<FrameRun> {
        self.frames.lock().take(frames, frames.next_power_of_two().min(512))
    }

    /// Gives a run back.
    ///
    /// # Panics
    /// If the allocator has it already: then the books are wrong and nothing is safe any more.
    pub fn give(&self, run: FrameRun) {
        if let Err(error) = self.frames.lock().give(run) {
            panic!("{error}");
        }
    }

    /// Words of memory outside any transaction, for extent lists ([M3](xen_contig::rules#M3)). They
    /// are given back with [`Lists::give_back`].
    pub fn lists(&self, words: u64) -> Option<Lists<'_>> {
        let frames = (words * 8).div_ceil(PAGE_SIZE as u64).max(1);
        let run = self.frames.lock().take(frames, 1)?;
        Some(Lists { machine: self, run: Some(run) })
    }

    /// Prints what was found at boot.
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
        say!("# memory: {} frames, {free} free ({} MiB)", self.p2m.frames(), free >> 8);
        say!("# contiguous memory: {}", self.capability);
        let mode = match self.areas.mode() {
            Mode::Lazy => "lazy",
            Mode::Sync => "sync",
        };
        let pages = self.areas.stats().free_pages;
        say!("# virtual areas: {mode}, {pages} pages ({} MiB)", pages.div_ceil(256));
    }
}

/// Memory for extent lists; gives itself back.
pub struct Lists<'m> {
    machine: &'m Machine,
    run: Option<FrameRun>,
}

impl Lists<'_> {
    /// The words.
    pub fn words(&mut self) -> &mut [u64] {
        let Some(run) = &self.run else { return &mut [] };
        let words = run.frames() as usize * (PAGE_SIZE / 8);
        // SAFETY: the run is mapped and ours alone ([M1](xen_contig::rules#M1)); any bytes are a
        // u64; the borrow of self keeps the run from going back meanwhile.
        unsafe { core::slice::from_raw_parts_mut(layout::linear(run.first()).as_mut_ptr(), words) }
    }
}

impl Drop for Lists<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.machine.give(run);
        }
    }
}

impl AsMut<[u64]> for Lists<'_> {
    fn as_mut(&mut self) -> &mut [u64] {
        self.words()
    }
}

// SAFETY: one machine, one guest. Runs come from the frame allocator, which hands out each frame
// once, and of frames that the boot code found to have the linear mapping alone. Lists come from
// there, too, so they lie in no other run.
unsafe impl Platform for &Machine {
    type Xen = Hypervisor;
    type Memory = Linear;
    type Linear = Linear;
    type Lists<'p>
        = Lists<'p>
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

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.frames.lock().take(frames, align)
    }

    fn take_where(
        &self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        self.frames.lock().take_where(frames, budget, fits)
    }

    fn give(&self, run: FrameRun) {
        Machine::give(self, run);
    }

    fn lists(&self, words: u64) -> Option<Lists<'_>> {
        Machine::lists(self, words)
    }
}

/// A word of a frame, through the linear mapping.
///
/// # Safety
/// The frame is mapped and belongs to the caller ([M1](xen_contig::rules#M1)); `index` is below
/// 512.
pub unsafe fn word(pfn: Pfn, index: usize) -> *mut u64 {
    // SAFETY: within the frame, by the caller's word.
    unsafe { layout::linear(pfn).as_mut_ptr::<u64>().add(index) }
}

/// No limit on the address.
pub const ANYWHERE: AddressBits = AddressBits::UNLIMITED;
