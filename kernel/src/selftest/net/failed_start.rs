//! Does the card stop before memory is freed, if its driver does not start?
//!
//! The memory of this test refuses one allocation of the driver, each time another one. Whenever the driver
//! frees memory after that, the test checks that the card has lost its right to do DMA.

use core::alloc::Layout;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use dma_api::{
    DeviceDma, DmaAllocHandle, DmaCoherency, DmaConstraints, DmaDeviceInfo, DmaDirection,
    DmaDomainId, DmaError, DmaMapHandle, DmaOp,
};
use pci_types::{CommandRegister, PciAddress, PciHeader};
use spin::Mutex;
use xen_contig::adapters::virtio_drivers::StaticDevice;

use crate::drivers::e1000::{E1000_CARD, NetworkCard};
use crate::drivers::memory::{Wide, allocator};
use crate::pci::ConfigSpace;
use crate::say;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::{find, is_balanced};
use crate::selftest::{Check, TestContext, fail};

/// The allocations that are refused: those of both rings, the first buffers of either direction, and later ones.
const REFUSED: [usize; 7] = [0, 1, 2, 3, 33, 34, 90];

/// The number of allocations that succeed before one is refused.
static REMAINING: AtomicUsize = AtomicUsize::new(0);

/// The number of times that memory was freed while the card could do DMA.
static FREED_TOO_EARLY: AtomicUsize = AtomicUsize::new(0);

/// The card whose right to do DMA is checked.
static CARD: Mutex<Option<PciAddress>> = Mutex::new(None);

/// Lets the start of the driver fail at different allocations.
pub fn failed_start(context: &TestContext<'_>) -> Check {
    // Dropped last: it frees what the driver has freed.
    let first = find(context, E1000_CARD)?;
    *CARD.lock() = Some(first.address());
    drop(first);
    let _tally = DriverTally::start("e1000");
    for refused in REFUSED {
        let device = find(context, E1000_CARD)?;
        REMAINING.store(refused, Ordering::Relaxed);
        FREED_TOO_EARLY.store(0, Ordering::Relaxed);
        let reach = DmaConstraints::new(Wide::device().limits().mask());
        let info = DmaDeviceInfo::new(DmaDomainId::Direct, DmaCoherency::Coherent, reach);
        match NetworkCard::start(device, &DeviceDma::new(info, &RefusingDma)) {
            Ok(_) => fail!("the card started, although allocation {refused} was refused"),
            Err(why) => say!("# e1000-failed-start: expected: {why}"),
        }
        let early = FREED_TOO_EARLY.load(Ordering::Relaxed);
        if early > 0 {
            fail!(
                "after allocation {refused} was refused, the driver freed memory {early} times \
                 while the card could do DMA"
            );
        }
    }
    is_balanced()
}

/// The adapter's `DmaOp`, which refuses an allocation and checks the card whenever memory is freed.
struct RefusingDma;

/// Returns true if this allocation is refused. Later ones succeed.
fn is_refused() -> bool {
    let next = |left: usize| Some(left.wrapping_sub(1));
    REMAINING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) == Ok(0)
}

/// Counts memory that is freed while the card can do DMA.
fn freeing() {
    let (space, card) = (ConfigSpace::open(allocator().platform()), *CARD.lock());
    let stopped = space.ok().zip(card).is_some_and(|(space, card)| {
        let command = PciHeader::new(card).command(&space);
        !command.contains(CommandRegister::BUS_MASTER_ENABLE)
    });
    if !stopped {
        FREED_TOO_EARLY.fetch_add(1, Ordering::Relaxed);
    }
}

impl DmaOp for RefusingDma {
    fn page_size(&self) -> usize {
        Wide::device().page_size()
    }

    unsafe fn alloc_contiguous(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        if is_refused() {
            return None;
        }
        // SAFETY: both functions have the same contract.
        unsafe { Wide::device().alloc_contiguous(constraints, layout) }
    }

    unsafe fn dealloc_contiguous(&self, handle: DmaAllocHandle) {
        freeing();
        // SAFETY: both functions have the same contract.
        unsafe { Wide::device().dealloc_contiguous(handle) }
    }

    unsafe fn alloc_coherent(
        &self,
        constraints: DmaConstraints,
        layout: Layout,
    ) -> Option<DmaAllocHandle> {
        if is_refused() {
            return None;
        }
        // SAFETY: both functions have the same contract.
        unsafe { DmaOp::alloc_coherent(Wide::device(), constraints, layout) }
    }

    unsafe fn dealloc_coherent(&self, handle: DmaAllocHandle) -> Result<(), DmaError> {
        freeing();
        // SAFETY: both functions have the same contract.
        unsafe { Wide::device().dealloc_coherent(handle) }
    }

    unsafe fn map_streaming(
        &self,
        constraints: DmaConstraints,
        addr: NonNull<u8>,
        size: NonZeroUsize,
        direction: DmaDirection,
    ) -> Result<DmaMapHandle, DmaError> {
        // SAFETY: both functions have the same contract.
        unsafe { Wide::device().map_streaming(constraints, addr, size, direction) }
    }

    unsafe fn unmap_streaming(&self, handle: DmaMapHandle) {
        // SAFETY: both functions have the same contract.
        unsafe { Wide::device().unmap_streaming(handle) }
    }
}
