//! Takes note of every address that the driver gets from the adapter's `Hal`, and finds out whose it
//! is: in PV by Xen's own table.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ptr::NonNull;

use spin::Mutex;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::addr::{DmaAddr, Mfn, PAGE_SIZE, Pfn};
use xen_contig::dma::Constraints;
use xen_contig::p2m::M2p;

use super::{Check, fail};
use crate::layout::LINEAR_BASE;
use crate::machine::Machine;
use crate::say;
use crate::traps::try_read;
use crate::virtio::{Kernel, allocator};

const PAGE: u64 = PAGE_SIZE as u64;

/// What the driver got an address for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Memory that it asked for.
    Allocated,
    /// A buffer of its own, as it is.
    InPlace,
    /// A buffer of its own, with another in its place.
    Bounced,
}

/// An address that the driver got.
#[derive(Clone, Debug)]
pub struct Handed {
    /// What for.
    pub how: How,
    /// Where the device finds it.
    pub dma: DmaAddr,
    /// Bytes of it.
    pub bytes: u64,
    /// Exchanges that it took.
    pub exchanges: u64,
    /// Where the driver finds it, or its own buffer.
    at: u64,
    /// What is wrong with it. Found out at once: a bounce buffer is soon somebody else's memory.
    fault: Option<String>,
}

impl fmt::Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { how, dma, bytes, exchanges, at, .. } = self;
        let how = match how {
            How::Allocated => "allocated",
            How::InPlace => "in place",
            How::Bounced => "bounced",
        };
        write!(f, "{bytes} bytes at {at:#x}, for the device {dma}, {how}, exchanges: {exchanges}")
    }
}

static HANDED: Mutex<Vec<Handed>> = Mutex::new(Vec::new());

/// What was handed out since this was last asked.
pub fn take() -> Vec<Handed> {
    mem::take(&mut *HANDED.lock())
}

fn note<S: StaticDevice<Platform = Kernel>>(
    how: How,
    dma: PhysAddr,
    buffer: NonNull<[u8]>,
    exchanged: u64,
) {
    let (at, bytes) = (buffer.cast::<u8>().addr().get() as u64, buffer.len() as u64);
    let exchanges = allocator().stats().exchanged - exchanged;
    let mut handed = Handed { how, dma: DmaAddr::new(dma), bytes, exchanges, at, fault: None };
    handed.fault = handed.find_fault(allocator().platform(), S::memory().constraints()).err();
    if let Some(fault) = &handed.fault {
        // Said at once, too: with a wrong address the driver may not live to see the test's end.
        say!("# virtio-blk: {handed}: {fault}");
    }
    HANDED.lock().push(handed);
}

/// The adapter's `Hal`, watched.
pub struct Watched<S>(PhantomData<S>);

// SAFETY: each method is the adapter's, with the arguments and the answer as they are.
unsafe impl<S: StaticDevice<Platform = Kernel>> Hal for Watched<S> {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let before = allocator().stats().exchanged;
        let (dma, pointer) = XenHal::<S>::dma_alloc(pages, direction);
        if dma != 0 {
            let memory = NonNull::slice_from_raw_parts(pointer, pages * PAGE_SIZE);
            note::<S>(How::Allocated, dma, memory, before);
        }
        (dma, pointer)
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller's.
        unsafe { XenHal::<S>::dma_dealloc(paddr, vaddr, pages) }
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: the caller's.
        unsafe { XenHal::<S>::mmio_phys_to_virt(paddr, size) }
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let (before, live) = (allocator().stats().exchanged, S::memory().live());
        // SAFETY: the caller's.
        let dma = unsafe { XenHal::<S>::share(buffer, direction) };
        let how = if S::memory().live() > live { How::Bounced } else { How::InPlace };
        note::<S>(how, dma, buffer, before);
        dma
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: the caller's.
        unsafe { XenHal::<S>::unshare(paddr, buffer, direction) }
    }
}

impl Handed {
    /// Fails if something was wrong with the address when it was handed out.
    pub fn check(&self) -> Check {
        match &self.fault {
            None => Ok(()),
            Some(fault) => fail!("{self}: {fault}"),
        }
    }

    /// A device of that reach must find memory of this guest there, all of it next to each other,
    /// and where nothing bounces the very memory that the driver has.
    fn find_fault(&self, machine: &Machine, reach: &Constraints) -> Result<(), String> {
        if !reach.admits(self.dma.get(), self.bytes) {
            return Err(format!("the device does not reach it, its mask is {:#x}", reach.mask()));
        }
        let first = self.dma.get() / PAGE;
        let last = (self.dma.get() + self.bytes - 1) / PAGE;
        for frame in first..=last {
            let Some(pfn) = owner(machine, frame) else {
                return Err(format!("frame {frame:#x} is not the guest's"));
            };
            let own = self.at.checked_sub(LINEAR_BASE).map(|offset| offset / PAGE + frame - first);
            if self.how != How::Bounced && own != Some(pfn.number()) {
                return Err(format!("frame {frame:#x} is pfn {pfn}, the driver's is {own:x?}"));
            }
        }
        if self.how != How::Bounced && self.at % PAGE != self.dma.get() % PAGE {
            return Err("the driver's memory begins elsewhere in its page".to_owned());
        }
        Ok(())
    }
}

/// The guest frame that a device reaches by a frame number, if it is one of this guest.
fn owner(machine: &Machine, frame: u64) -> Option<Pfn> {
    let Some(m2p) = machine.m2p else {
        let pfn = Pfn::new(frame);
        return machine.p2m.gfn(pfn).map(|_| pfn);
    };
    let mfn = Mfn::new(frame);
    // Where there is no memory, Xen maps no piece of its table.
    let record = m2p.entry(mfn).and_then(|entry| try_read(entry).ok())?;
    M2p::decode(record).filter(|pfn| machine.p2m.mfn(*pfn) == Some(mfn))
}
