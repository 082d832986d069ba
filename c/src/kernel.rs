//! A C kernel as the traits of the library see it.

use core::ptr;
use core::slice;
use core::sync::atomic::{Ordering::SeqCst, compiler_fence};

use xen_contig::addr::{MachineAddr, Mfn, PAGE_SIZE, Pfn, VirtAddr};
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::paging::{FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping};
use xen_contig::platform::Platform;
use xen_contig::sync::AtomicU64;

use crate::error::Failure;
use crate::lock::ReserveLock;
use crate::platform::{
    XC_HOLDER_DESCRIPTOR_TABLE, XC_HOLDER_DEVICE, XC_HOLDER_GRANTED, XC_HOLDER_MAPPING,
    XC_HOLDER_PAGE_TABLE, XC_HOLDER_SHARED, XC_HOLDER_UNKNOWN, XC_NO_FRAME, xc_holder, xc_platform,
};
use crate::text;
use crate::xen::ForeignXen;

/// The machine address of an entry that Xen refuses to write. It stands for a missing or misaligned one.
const NO_ENTRY: u64 = !7;

/// Free runs, and candidates in them, that one search visits.
const VISITED: u32 = 256;

/// A C kernel.
pub struct Kernel {
    platform: xc_platform,
    xen: ForeignXen,
    p2m: P2m<'static>,
    flushes: FlushClock,
    accounts: Accounts,
}

impl Kernel {
    /// Returns the kernel that a platform describes.
    ///
    /// # Safety
    /// The platform is true, and stays true as long as the kernel is used: `xen_contig.h` says what each of
    /// its members promises.
    ///
    /// # Errors
    /// What is missing or wrong in the platform.
    pub unsafe fn new(platform: xc_platform) -> Result<Self, Failure> {
        platform.check()?;
        let Some(xen) = ForeignXen::of(&platform) else {
            return Err(Failure::Null { argument: "xc_platform.hypercall" });
        };
        let (p2m, flushes) = if platform.p2m.is_null() {
            (P2m::translated(platform.frames), FlushClock::translated())
        } else {
            let (entries, frames) = (platform.p2m.cast::<AtomicU64>(), platform.frames as usize);
            // SAFETY: the kernel's P2M has that many entries, is true, and nothing else writes to it
            // ([M4](xen_contig::rules#M4)): the function's requirement.
            let p2m = unsafe { P2m::table(slice::from_raw_parts(entries, frames)) };
            (p2m, FlushClock::pv())
        };
        Ok(Self { platform, xen, p2m, flushes, accounts: Accounts::new() })
    }

    /// Returns the kernel's accounts of lost frames.
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Makes a run of frames that the kernel has handed out. Returns `None` if the run is misaligned or lies
    /// outside of the guest's memory.
    fn taken(&self, first: u64, frames: u64, align: u64) -> Option<FrameRun> {
        let end = first.checked_add(frames)?;
        if end > self.platform.frames || !first.is_multiple_of(align) || self.is_at_null(first) {
            return None;
        }
        // SAFETY: the kernel hands out frames that nothing else owns and that only the linear mapping maps
        // ([M1](xen_contig::rules#M1), [S2](xen_contig::rules#S2)): `Kernel::new` requires it.
        Some(unsafe { FrameRun::new(Pfn::new(first), frames) })
    }

    /// Returns true if a frame is mapped at address 0, where C has no memory.
    fn is_at_null(&self, frame: u64) -> bool {
        self.platform.linear_base == 0 && frame == 0
    }

    /// Takes frames of a free run that `fits` accepts. Without one, returns where the search goes on.
    fn take_of_free(
        &self,
        (first, end): (u64, u64),
        frames: u64,
        visited: &mut u32,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Result<FrameRun, u64> {
        let context = self.platform.context;
        let mut candidate = if self.is_at_null(first) { 1 } else { first };
        while end.saturating_sub(candidate) >= frames {
            if *visited == VISITED {
                return Err(candidate);
            }
            *visited += 1;
            let next = match fits(Pfn::new(candidate)) {
                Candidate::Fits => {
                    // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
                    let take = |take_at: unsafe extern "C" fn(_, _, _) -> _| unsafe {
                        take_at(context, candidate, frames) != 0
                    };
                    if self.platform.take_at.is_some_and(take) {
                        return self.taken(candidate, frames, 1).ok_or(end);
                    }
                    // Another vCPU was faster.
                    candidate + 1
                }
                Candidate::TryFrom(next) => next.number().max(candidate + 1),
            };
            candidate = next;
        }
        Err(candidate.max(end))
    }
}

/// Returns what the kernel says of a frame.
///
/// # Safety
/// A name in the answer is text that stays as it is for good.
unsafe fn holder_of(answer: &xc_holder) -> Holder {
    let address = VirtAddr::new_truncate(answer.value);
    let name = || {
        // SAFETY: the kernel's names stay: the function's requirement.
        unsafe { text::name(answer.name, "unnamed") }
    };
    match answer.kind {
        XC_HOLDER_MAPPING => Holder::Mapping { address },
        XC_HOLDER_PAGE_TABLE => Holder::PageTable { level: answer.value as u8 },
        XC_HOLDER_DESCRIPTOR_TABLE => Holder::DescriptorTable { vcpu: answer.value as u32 },
        XC_HOLDER_GRANTED => Holder::Granted { reference: answer.value as u32 },
        XC_HOLDER_SHARED => Holder::Shared { name: name() },
        XC_HOLDER_DEVICE => Holder::Device { name: name() },
        _ => Holder::Unknown,
    }
}

/// Returns an answer for the kernel to fill.
const fn blank(frame: u64) -> xc_holder {
    let (kind, name) = (XC_HOLDER_UNKNOWN, ptr::null());
    xc_holder { frame, kind, reserved: 0, value: 0, name }
}

// SAFETY: the kernel maps each frame at its place after `linear_base`, readable and writable: `Kernel::new`
// requires it. The kernel's `zero`, or the default, fills the memory that it is given.
unsafe impl GuestMemory for Kernel {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        let (memory, bytes) = (self.pointer(first), frames * PAGE_SIZE as u64);
        // SAFETY: the frames are mapped side by side, and nothing else uses them
        // ([M1](xen_contig::rules#M1)): the function's requirement.
        unsafe {
            match self.platform.zero {
                Some(zero) => zero(self.platform.context, memory.cast(), bytes),
                None => memory.write_bytes(0, bytes as usize),
            }
        }
        compiler_fence(SeqCst);
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.platform.linear_base.wrapping_add(pfn.number() << 12) as *mut u8
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        let Some(purge) = self.platform.purge else { return Ok(()) };
        let (first, frames) = (run.first().number(), run.frames());
        let mut answer = blank(first);
        // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
        match unsafe { purge(self.platform.context, first, frames, &raw mut answer) } {
            0 => Ok(()),
            _ => {
                // SAFETY: the header requires names that stay.
                let holder = unsafe { holder_of(&answer) };
                Err(FrameInUse { pfn: Pfn::new(answer.frame), holder })
            }
        }
    }

    fn holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        let Some(holder) = self.platform.holder else { return Holder::Unknown };
        let (frame, mut answer) = (pfn.number(), blank(pfn.number()));
        let machine_frame = mfn.map_or(XC_NO_FRAME, Mfn::number);
        // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says, and names that
        // stay.
        unsafe {
            holder(self.platform.context, frame, machine_frame, &raw mut answer);
            holder_of(&answer)
        }
    }
}

// SAFETY: the kernel's `entry` names the entry that maps a frame, for good, and no other entry maps a frame
// that the kernel hands out: `Kernel::new` requires it. The clock is that of a PV guest, and a translated
// guest's kernel has no linear mapping to offer.
unsafe impl LinearMapping for Kernel {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        let Some(entry) = self.platform.entry else { return MachineAddr::new(NO_ENTRY) };
        // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
        let address = unsafe { entry(self.platform.context, pfn.number()) };
        MachineAddr::new(if address.is_multiple_of(8) { address } else { NO_ENTRY })
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }
}

/// Frames of the kernel that hold a list.
pub struct ListMemory<'k> {
    kernel: &'k Kernel,
    run: Option<FrameRun>,
}

impl AsMut<[u64]> for ListMemory<'_> {
    fn as_mut(&mut self) -> &mut [u64] {
        let Some(run) = &self.run else { return &mut [] };
        let words = run.frames() as usize * (PAGE_SIZE / 8);
        // SAFETY: the frames are mapped side by side and belong to `self` alone
        // ([M1](xen_contig::rules#M1)). Any bytes are words.
        unsafe { slice::from_raw_parts_mut(self.kernel.pointer(run.first()).cast(), words) }
    }
}

impl Drop for ListMemory<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.kernel.give(run);
        }
    }
}

// SAFETY: all functions are those of one kernel, which hands out frames that nothing else owns, with the
// linear mapping alone: `Kernel::new` requires it. Lists are frames of their own, so they lie in no other
// run.
unsafe impl Platform for Kernel {
    type Xen = ForeignXen;
    type Memory = Self;
    type Linear = Self;
    type Lock = ReserveLock;
    type Lists<'p> = ListMemory<'p>;

    fn xen(&self) -> &ForeignXen {
        &self.xen
    }

    fn memory(&self) -> &Self {
        self
    }

    fn linear(&self) -> Option<&Self> {
        (!self.p2m.is_translated()).then_some(self)
    }

    fn p2m(&self) -> &P2m<'_> {
        &self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn free_frames(&self) -> u64 {
        // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
        let count = |count: unsafe extern "C" fn(_) -> _| unsafe { count(self.platform.context) };
        self.platform.free_frames.map_or(0, count)
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        let take = self.platform.take?;
        // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
        let first = unsafe { take(self.platform.context, frames, align) };
        self.taken(first, frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        let Some(next_free) = self.platform.next_free else { return Search::End };
        let (mut from, mut visited) = (from.number(), 0);
        while visited < VISITED {
            visited += 1;
            let (mut first, mut count) = (0, 0);
            // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says.
            let found = unsafe {
                next_free(self.platform.context, from, &raw mut first, &raw mut count) != 0
            };
            let end = first.saturating_add(count).min(self.platform.frames);
            // A run that ends before the search has no place in it: the kernel would repeat it.
            if !found || end <= from {
                return Search::End;
            }
            match self.take_of_free((first.max(from), end), frames, &mut visited, fits) {
                Ok(run) => return Search::Taken(run),
                Err(next) => from = next,
            }
        }
        Search::Continue(Pfn::new(from))
    }

    fn give(&self, run: FrameRun) {
        let (first, frames) = (run.first().number(), run.frames());
        if let Some(give) = self.platform.give {
            // SAFETY: `Kernel::new` requires a kernel whose functions do as the header says. The run was
            // taken from it and is freed once ([M1](xen_contig::rules#M1)).
            unsafe { give(self.platform.context, first, frames) };
        }
    }

    fn lists(&self, words: u64) -> Option<ListMemory<'_>> {
        let frames = (words * 8).div_ceil(PAGE_SIZE as u64).max(1);
        let run = self.take(frames, 1)?;
        Some(ListMemory { kernel: self, run: Some(run) })
    }
}
