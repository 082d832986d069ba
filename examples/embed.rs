//! A kernel that embeds the library, on a model of Xen: `cargo run --example embed`.
//!
//! The model plays Xen, the machine and the domain builder. `Kernel` is what a kernel author writes:
//! three traits and a list of free frames. The example is a PV guest.

use std::error::Error;
use std::sync::Mutex;

use fake_xen::{FakeGuest, FakeXen, GuestBuilder};
use hypercall::PageTableFlags;
use xen_contig::addr::{MachineAddr, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, Constraints, GiveBack};
use xen_contig::exchange::Accounts;
use xen_contig::frames::{Candidate, FrameAllocator, FrameRun};
use xen_contig::p2m::P2m;
use xen_contig::paging::{FlushClock, GuestMemory, LinearMapping};
use xen_contig::platform::Platform;

/// What the kernel knows about its memory.
struct Kernel<'m> {
    machine: &'m FakeGuest,
    p2m: P2m<'m>,
    free: Mutex<FrameAllocator<'m>>,
    flushes: FlushClock,
    accounts: Accounts,
}

impl<'m> Kernel<'m> {
    /// Starts on a machine. All frames after the page tables are free.
    fn boot(machine: &'m FakeGuest, bitmap: &'m mut [u64]) -> Self {
        let mut free = FrameAllocator::new(bitmap, machine.frames());
        let first = machine.usable().next().map_or(0, Pfn::number);
        free.give(machine.run(first, machine.frames() - first)).expect("an empty list");
        Self {
            machine,
            p2m: machine.p2m(),
            free: Mutex::new(free),
            flushes: FlushClock::pv(),
            accounts: Accounts::new(),
        }
    }
}

// SAFETY: the model maps every populated frame at its address in the linear mapping, readable and
// writable, and `zero` writes the bytes of the given frames only.
unsafe impl GuestMemory for Kernel<'_> {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        for offset in (0..frames as usize * PAGE_SIZE).step_by(8) {
            let word = self.pointer(first).wrapping_add(offset).cast::<u64>();
            // SAFETY: the contract of `zero` says that the frames are mapped and nothing else uses
            // them; the word lies in them and is aligned.
            unsafe { word.write_volatile(0) };
        }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.machine.address(pfn).as_mut_ptr()
    }
}

// SAFETY: `entry` names the entry of the linear mapping, which never moves. This kernel maps no
// frame a second time.
unsafe impl LinearMapping for Kernel<'_> {
    // A real kernel computes this address from its own page tables.
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.machine.entry(pfn)
    }

    fn flags(&self) -> PageTableFlags {
        PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE
    }

    fn flushes(&self) -> &FlushClock {
        &self.flushes
    }
}

// SAFETY: every method speaks of one machine. The list hands out each frame once, and the memory of
// `lists` is the host's, outside of every run.
unsafe impl<'m> Platform for Kernel<'m> {
    type Xen = FakeXen;
    type Memory = Self;
    type Linear = Self;
    type Lists<'p>
        = Vec<u64>
    where
        Self: 'p;

    fn xen(&self) -> &FakeXen {
        self.machine.xen()
    }

    fn memory(&self) -> &Self {
        self
    }

    // A PVH guest has no entries to write, and returns `None`.
    fn linear(&self) -> Option<&Self> {
        Some(self)
    }

    fn p2m(&self) -> &P2m<'_> {
        &self.p2m
    }

    fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn take(&self, frames: u64, align: u64) -> Option<FrameRun> {
        self.free.lock().unwrap().take(frames, align)
    }

    fn take_where(
        &self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(Pfn) -> Candidate,
    ) -> Option<FrameRun> {
        self.free.lock().unwrap().take_where(frames, budget, fits)
    }

    fn give(&self, run: FrameRun) {
        self.free.lock().unwrap().give(run).expect("each run is returned once");
    }

    fn lists(&self, words: u64) -> Option<Vec<u64>> {
        Some(vec![0; words as usize])
    }
}

/// Boots the kernel, allocates a buffer for a device of 24 address bits, and uses it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let machine = GuestBuilder::new(2048).real_memory().build();
    let mut bitmap = vec![0; FrameAllocator::bitmap_words(machine.frames())];
    let allocator = Allocator::new(Kernel::boot(&machine, &mut bitmap), GiveBack::Keep);
    println!("contiguous memory: {:?}", allocator.capability());

    let limits = Constraints::builder().mask((1 << 24) - 1).build()?;
    let buffer = allocator.alloc_coherent(64 << 10, &limits)?;
    println!("allocated {} bytes at pfn {}", buffer.len(), buffer.frames().first());
    println!("the processor's address: {:p}", buffer.as_ptr());
    println!("the device's address: {} (below 16 MiB)", buffer.dma_addr());

    // The driver writes through the pointer, the device reads by its own address.
    let word = buffer.as_ptr().as_ptr().cast::<u64>();
    // SAFETY: the buffer is mapped, larger than a word and page-aligned; the access is volatile.
    unsafe { word.write_volatile(0x1234_5678) };
    let mut seen = [0; 8];
    machine.dma_read(buffer.dma_addr(), &mut seen);
    println!("the device reads {:#x}", u64::from_le_bytes(seen));

    machine.dma_write(buffer.dma_addr(), &0x8765_4321_u64.to_le_bytes());
    // SAFETY: the buffer is mapped, larger than a word and page-aligned; the access is volatile.
    let answer = unsafe { word.read_volatile() };
    println!("the driver reads {answer:#x}");
    assert_eq!((u64::from_le_bytes(seen), answer), (0x1234_5678, 0x8765_4321));
    Ok(())
}
