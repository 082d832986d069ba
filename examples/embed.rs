//! A kernel that embeds the library, on a model of Xen: `cargo run --example embed`.
//!
//! The model plays Xen, the machine and the domain builder. `Kernel` is what the author of a PV
//! kernel writes: three traits and a list of free frames.

use std::error::Error;
use std::iter;
use std::sync::Mutex;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use fake_xen::{FakeGuest, FakeXen, GuestBuilder};
use xen_contig::addr::{MachineAddr, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun, Search};
use xen_contig::p2m::P2m;
use xen_contig::paging::{FlushClock, GuestMemory, LinearMapping};
use xen_contig::platform::Platform;

/// What the kernel knows about its memory.
struct Kernel {
    machine: &'static FakeGuest,
    p2m: P2m<'static>,
    free: Mutex<FrameAllocator<'static>>,
    flushes: FlushClock,
    accounts: Accounts,
}

// SAFETY: the model maps every populated frame at its address in the linear mapping, readable and
// writable. `zero` fills the given frames only.
unsafe impl GuestMemory for Kernel {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: the contract of `zero` says that the frames are mapped and unused.
        unsafe { self.pointer(first).write_bytes(0, frames as usize * PAGE_SIZE) };
        compiler_fence(SeqCst);
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.machine.address(pfn).as_mut_ptr()
    }
}

// SAFETY: `entry` names the entry of the linear mapping, which never moves. This kernel maps no
// frame a second time.
unsafe impl LinearMapping for Kernel {
    // A real kernel computes this address from its own page tables.
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.machine.entry(pfn)
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }
}

// SAFETY: every method describes the same machine. The list hands out each frame once, and the
// memory of `lists` belongs to the host, so it lies outside every run.
unsafe impl Platform for Kernel {
    type Xen = FakeXen;
    type Memory = Self;
    type Linear = Self;
    type Lock = spin::Mutex<()>;
    type Lists<'p> = Vec<u64>;

    fn xen(&self) -> &FakeXen {
        self.machine.xen()
    }

    fn memory(&self) -> &Self {
        self
    }

    // A PVH kernel returns `None`.
    fn linear(&self) -> Option<&Self> {
        Some(self)
    }

    fn p2m(&self) -> &P2m<'_> {
        &self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn free_frames(&self) -> u64 {
        self.free.lock().unwrap().free_frames()
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.free.lock().unwrap().take(frames, align)
    }

    fn take_where(&self, frames: u64, from: Pfn, fits: &mut dyn FnMut(Pfn) -> Candidate) -> Search {
        self.free.lock().unwrap().take_where(frames, from, fits)
    }

    fn give(&self, run: FrameRun) {
        self.free.lock().unwrap().give(run).expect("each run is returned once");
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        Some(vec![0; words as usize])
    }
}

/// Takes a frame for the kernel itself. If none is free, the reserve frees idle memory.
///
/// The kernel's lock is not held during `reclaim`, which calls `give`.
fn take_page(allocator: &Allocator<Kernel>) -> Option<FrameRun> {
    loop {
        let page = allocator.platform().take(1, 1);
        if page.is_some() || allocator.reclaim(1) == 0 {
            return page;
        }
    }
}

/// Boots the kernel, allocates a buffer for a device with 24 address bits, and uses it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let machine: &FakeGuest = Box::leak(Box::new(GuestBuilder::new(2048).real_memory().build()));
    let (frames, p2m) = (machine.frames(), machine.p2m());
    let bitmap = vec![0; FrameAllocator::bitmap_words(frames)].leak();
    let free = Mutex::new(FrameAllocator::new(bitmap, frames));
    let (flushes, accounts) = (FlushClock::pv(), Accounts::new());
    let kernel = Kernel { machine, p2m, free, flushes, accounts };
    let first = machine.usable().next().ok_or("no free frame")?.number();
    kernel.give(machine.run(first, frames - first));

    let allocator = Allocator::new(kernel, Retain::default());
    println!("contiguous memory: {}", allocator.capability());

    let limits = Constraints::builder().mask((1 << 24) - 1).build()?;
    let mut buffer = allocator.alloc_coherent(64 << 10, &limits)?;
    println!("allocated {} bytes at pfn {}", buffer.len(), buffer.frames().first());
    println!("the processor's address: {:p}", buffer.as_ptr());
    println!("the device's address: {} (below 16 MiB)", buffer.dma_addr());

    // The driver writes by offset. The device reads by its own address.
    buffer.store(0, 0x1234_5678_u64)?;
    let mut seen = [0; 8];
    machine.dma_read(buffer.dma_addr(), &mut seen);
    println!("the device reads {:#x}", u64::from_le_bytes(seen));

    machine.dma_write(buffer.dma_addr(), &0x8765_4321_u64.to_le_bytes());
    let answer: u64 = buffer.load(0)?;
    println!("the driver reads {answer:#x}");
    assert_eq!((u64::from_le_bytes(seen), answer), (0x1234_5678, 0x8765_4321));

    // The reserve retains what a driver drops. A kernel without a free frame takes it.
    drop(buffer);
    let (kernel, idle) = (allocator.platform(), allocator.stats().idle);
    let free = kernel.free_frames();
    let pages: Vec<_> = iter::from_fn(|| take_page(&allocator)).collect();
    println!("the kernel had {free} free frames and took {}", pages.len());
    assert!(idle >= 16 && pages.len() as u64 >= free + idle);
    pages.into_iter().for_each(|page| kernel.give(page));

    // A trim returns scarce memory to Xen.
    let report = allocator.trim(u64::MAX);
    println!("trimmed: {} frames returned to Xen, {} freed", report.returned, report.freed);
    Ok(())
}
