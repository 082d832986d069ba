//! Where a device finds memory of the guest.

use super::source::SourcePage;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::dma::Constraints;
use crate::p2m::P2m;
use crate::paging::GuestMemory;
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// Where a device finds a page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAddress {
    /// At this address.
    At(u64),
    /// The page is not in the linear mapping, so its frame is unknown.
    Unknown,
    /// The page is in the linear mapping, and no machine frame backs it.
    NotBacked(Pfn),
}

/// Translates addresses of the linear mapping for a device.
#[derive(Debug)]
pub struct DeviceView<'p, M> {
    memory: &'p M,
    p2m: &'p P2m<'p>,
    /// Where the linear mapping begins.
    base: u64,
}

impl<'p, M: GuestMemory> DeviceView<'p, M> {
    pub fn new<P: Platform<Memory = M>>(platform: &'p P) -> Self {
        let memory = platform.memory();
        let base = memory.pointer(Pfn::new(0)).addr() as u64;
        Self { memory, p2m: platform.p2m(), base }
    }

    /// Returns the guest frame of a page, if the page is in the linear mapping.
    pub fn frame(&self, page: &SourcePage) -> Pfn {
        let start = page.pointer.addr() as u64 - page.in_page();
        Pfn::new(start.wrapping_sub(self.base) / PAGE)
    }

    /// Returns where the device finds a page. Reads one entry of the P2M.
    pub fn find(&self, page: &SourcePage) -> DeviceAddress {
        let (pfn, start) = (self.frame(page), page.pointer.addr() as u64 - page.in_page());
        // The processor must reach this frame at this address: the kernel can map something else around
        // the guest's memory.
        if pfn.number() >= self.p2m.frames() || self.memory.pointer(pfn).addr() as u64 != start {
            return DeviceAddress::Unknown;
        }
        match self.p2m.gfn(pfn) {
            Some(gfn) => {
                DeviceAddress::At(gfn.number().saturating_mul(PAGE).saturating_add(page.in_page()))
            }
            None => DeviceAddress::NotBacked(pfn),
        }
    }
}

/// The addresses that a device can be given.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    lowest: u64,
    mask: u64,
    align: u64,
}

impl Reach {
    pub const fn new(limits: &Constraints) -> Self {
        Self { lowest: limits.lowest(), mask: limits.mask(), align: limits.streaming_align() }
    }

    /// Returns true if the device can access `bytes` bytes from `address` on in place.
    pub const fn admits(&self, address: u64, bytes: u64) -> bool {
        match address.checked_add(bytes) {
            Some(end) => {
                address >= self.lowest && end - 1 <= self.mask && address.is_multiple_of(self.align)
            }
            None => false,
        }
    }
}
