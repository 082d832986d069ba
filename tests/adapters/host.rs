//! A kernel that has the tables of the model and memory of the host.
//!
//! The guest frames lie side by side in an arena, as in a linear mapping, so that driver crates can
//! follow pointers. The device uses machine addresses. It translates each page by the model's M2P, so a
//! test fails if pages are not contiguous in the machine although the library said so.

use std::alloc::{Layout, alloc_zeroed};
use std::sync::Mutex;

use fake_xen::{FakeGuest, FakePlatform, FakeXen};
use hypercall::{Mfn, PageTableFlags};
use xen_contig::addr::{MachineAddr, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Constraints, Device, Retain, Stats, TrimReport};
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::paging::{FlushClock, GuestMemory, LinearMapping};
use xen_contig::platform::Platform;

pub type Kernel = &'static Host;

/// A driver's own bytes at the start of a page. A bounce buffer keeps the offset in the page.
#[repr(align(4096))]
pub struct PageAligned<const N: usize>(pub [u8; N]);

pub const FRAMES: u64 = 2048;

pub struct Host {
    model: &'static FakePlatform,
    memory: Arena,
}

pub struct Arena {
    guest: &'static FakeGuest,
    base: *mut u8,
}

// SAFETY: the arena is never freed, and only the owner of a frame accesses it
// ([M1](xen_contig::rules#M1)), on whichever thread.
unsafe impl Send for Arena {}
// SAFETY: a shared `Arena` gives out raw pointers alone. Only the owner of a frame accesses it
// ([M1](xen_contig::rules#M1)).
unsafe impl Sync for Arena {}

// SAFETY: every frame has a place of its own in the arena, readable and writable.
unsafe impl GuestMemory for Arena {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the frames lie in the arena. `GuestMemory::zero` requires that nothing else accesses
        // them.
        unsafe { self.pointer(first).write_bytes(0, frames as usize * PAGE_SIZE) };
        // SAFETY: the caller meets the requirements of the same method. The model has bytes of its own,
        // which it checks in an exchange.
        unsafe { self.guest.zero(first, frames) };
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.base.wrapping_add(pfn.number() as usize * PAGE_SIZE)
    }
}

// SAFETY: the entries are those of the model, which an exchange changes.
unsafe impl LinearMapping for Arena {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.guest.entry(pfn)
    }

    fn flags(&self) -> PageTableFlags {
        self.guest.flags()
    }

    fn flushes(&self) -> &FlushClock {
        self.guest.flushes()
    }
}

// SAFETY: every method calls the model's platform, which meets the requirements of the trait.
unsafe impl Platform for Kernel {
    type Xen = FakeXen;
    type Memory = Arena;
    type Linear = Arena;
    type Lock = spin::Mutex<()>;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.model.guest().xen()
    }

    fn memory(&self) -> &Arena {
        &self.memory
    }

    fn linear(&self) -> Option<&Arena> {
        self.model.linear().map(|_| &self.memory)
    }

    fn p2m(&self) -> &P2m<'_> {
        Platform::p2m(&self.model)
    }

    fn accounts(&self) -> &Accounts {
        Platform::accounts(&self.model)
    }

    fn free_frames(&self) -> u64 {
        self.model.free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.model.take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.model.take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        self.model.give(run);
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        self.model.lists(words)
    }
}

/// The arenas of scenes that ended.
static ARENAS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Returns memory for a guest's frames. Its bytes can be those of an earlier scene.
fn arena() -> *mut u8 {
    let used = ARENAS.lock().unwrap().pop();
    let base = used.map_or_else(
        || {
            let layout = Layout::from_size_align(FRAMES as usize * PAGE_SIZE, 8 << 20).unwrap();
            // SAFETY: the layout has a size above zero.
            unsafe { alloc_zeroed(layout) }
        },
        std::ptr::with_exposed_provenance_mut,
    );
    assert!(!base.is_null());
    base
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A kernel, its allocator, and a device.
#[derive(Clone, Copy)]
pub struct HostScene {
    pub host: Kernel,
    pub device: &'static Device<'static, Kernel>,
    allocator: &'static Allocator<Kernel>,
    free: u64,
    /// Frames for the records of the reserve at the start.
    records: u64,
}

impl HostScene {
    pub fn new(guest: FakeGuest, limits: Constraints) -> Self {
        let model = leak(FakePlatform::new(guest));
        let base = arena();
        let host: Kernel = leak(Host { model, memory: Arena { guest: model.guest(), base } });
        let allocator = leak(Allocator::new(host, Retain::NOTHING));
        let device = leak(Device::new(allocator, "tested", &limits).unwrap());
        let (free, records) = (model.free_frames(), allocator.stats().records);
        Self { host, device, allocator, free, records }
    }

    /// Ends the scene: the next one uses its arena. For tests that build hundreds of scenes.
    pub fn end(self) {
        ARENAS.lock().unwrap().push(self.host.memory.base.expose_provenance());
    }

    pub fn guest(&self) -> &'static FakeGuest {
        self.host.model.guest()
    }

    /// Takes a free frame.
    pub fn take_frame(&self) -> Option<FrameRun> {
        self.host.take(1, 1)
    }

    /// Returns how many hypercalls were made since the last call of this method.
    pub fn take_calls(&self) -> usize {
        self.guest().xen().take_log().len()
    }

    /// Checks that drivers have no buffer and that after a trim every frame is free.
    pub fn check_balance(&self) {
        let mappings = self.device.report().counts().live_mappings;
        assert_eq!((self.device.live(), mappings), (0, 0), "{}", self.device.report());
        self.check_accounts(0);
        let report = self.trim();
        assert_eq!((report.error, self.stats().idle), (None, 0), "{report:?}");
        assert_eq!(self.host.model.free_frames(), self.free);
        self.guest().check_whole();
    }

    /// Checks that every frame is free, in a buffer, in the reserve or quarantined. `held` frames are
    /// in buffers. Returns the number of quarantined frames.
    pub fn check_accounts(&self, held: u64) -> u64 {
        let quarantined = Platform::accounts(&self.host).quarantined();
        let free = self.host.model.free_frames();
        let stats = self.stats();
        let reserve = stats.idle + stats.set_aside + stats.records - self.records;
        let sum = free + held + reserve + quarantined;
        assert_eq!(
            sum, self.free,
            "{free} free, {held} in buffers, {reserve} in the reserve, {quarantined} quarantined"
        );
        let census = self.guest().check();
        let lost = census.holes.len() + census.unmapped.len();
        assert!(lost as u64 <= quarantined, "{census:?}");
        quarantined
    }

    /// Returns the figures of the allocator.
    pub fn stats(&self) -> Stats {
        self.allocator.stats()
    }

    /// Trims all idle memory.
    pub fn trim(&self) -> TrimReport {
        self.allocator.trim(u64::MAX)
    }

    /// Takes frames of the linear mapping as a driver's own memory. Returns them and their address.
    pub fn take_linear(&self, frames: u64) -> (FrameRun, *mut u8) {
        let run = self.host.take(frames, 1).unwrap();
        let pointer = self.host.memory.pointer(run.first());
        (run, pointer)
    }

    /// Frees the frames of a run.
    pub fn give(&self, run: FrameRun) {
        self.host.give(run);
    }

    /// Changes the machine frame of the page at device address `dma`, as a restore does.
    ///
    /// Only the P2M changes. Returns a function that undoes this.
    pub fn move_page(&self, dma: u64) -> impl FnOnce() + use<> {
        let guest = self.guest();
        let pfn = guest.pfn(Mfn::new(dma / PAGE_SIZE as u64)).unwrap();
        let before = guest.forge(pfn, guest.mfn(Pfn::new(FRAMES - 1)).unwrap());
        move || {
            guest.forge(pfn, before);
        }
    }

    /// Swaps the machine frames that back two guest frames, as a restore can.
    ///
    /// Only the P2M and the M2P change.
    pub fn swap_backing(&self, one: Pfn, other: Pfn) {
        let guest = self.guest();
        let (mine, theirs) = (guest.mfn(one).unwrap(), guest.mfn(other).unwrap());
        guest.forge(one, theirs);
        guest.forge(other, mine);
        guest.record(mine, Some(other));
        guest.record(theirs, Some(one));
    }

    /// Returns the number of the frame that the device uses for a guest frame.
    pub fn mfn(&self, pfn: Pfn) -> u64 {
        Platform::p2m(&self.host).gfn(pfn).unwrap().number()
    }

    /// Returns the byte at a device address. Panics if the guest does not own its frame.
    fn byte(&self, dma: u64) -> *mut u8 {
        let page = PAGE_SIZE as u64;
        let frame = dma / page;
        let pfn = match Platform::p2m(&self.host).is_translated() {
            true => Pfn::new(frame),
            false => self.guest().pfn(Mfn::new(frame)).expect("the guest owns the frame"),
        };
        assert!(pfn.number() < FRAMES);
        self.host.memory.pointer(pfn).wrapping_add((dma % page) as usize)
    }

    /// Reads as the device does.
    pub fn device_reads(&self, dma: u64, bytes: usize) -> Vec<u8> {
        // Byte by byte, because each page may lie elsewhere.
        // SAFETY: `byte` returns an address in the arena.
        (dma..dma + bytes as u64).map(|at| unsafe { self.byte(at).read_volatile() }).collect()
    }

    /// Writes as the device does.
    pub fn device_writes(&self, dma: u64, bytes: &[u8]) {
        for (at, byte) in (dma..).zip(bytes) {
            // SAFETY: `byte` returns an address in the arena.
            unsafe { self.byte(at).write_volatile(*byte) };
        }
    }
}
