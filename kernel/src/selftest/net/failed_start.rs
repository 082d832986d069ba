//! Does the card stop before memory is freed, if its driver does not start?
//!
//! The memory of this test refuses one allocation of the driver, each time another one. Whenever the driver
//! frees memory after that, the test checks that the card has lost its right to do DMA.

use core::sync::atomic::{AtomicUsize, Ordering};

use pci_types::{CommandRegister, PciAddress, PciHeader};
use spin::Mutex;

use crate::drivers::e1000::{E1000_CARD, NetworkCard};
use crate::drivers::memory::{Wide, allocator};
use crate::pci::ConfigSpace;
use crate::say;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::watched_dma::{device_dma, refuse_after};
use crate::selftest::drivers::{find, is_balanced};
use crate::selftest::{Check, TestContext, fail};

/// The allocations that are refused: those of both rings, the first buffers of either direction, and later ones.
const REFUSED: [usize; 7] = [0, 1, 2, 3, 33, 34, 90];

/// The number of times that memory was freed while the card could do DMA.
static FREED_TOO_EARLY: AtomicUsize = AtomicUsize::new(0);

/// The card whose right to do DMA is checked.
static CARD: Mutex<Option<PciAddress>> = Mutex::new(None);

/// Lets the start of the driver fail at different allocations.
pub fn failed_start(context: &TestContext<'_>) -> Check {
    let first = find(context, E1000_CARD)?;
    *CARD.lock() = Some(first.address());
    drop(first);
    // Dropped last: it frees what the driver has freed.
    let _tally = DriverTally::start("e1000");
    for refused in REFUSED {
        let device = find(context, E1000_CARD)?;
        FREED_TOO_EARLY.store(0, Ordering::Relaxed);
        refuse_after(refused, count_if_too_early);
        match NetworkCard::start(device, &device_dma::<Wide>()) {
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

/// Counts memory that is freed while the card can do DMA.
fn count_if_too_early() {
    let (space, card) = (ConfigSpace::open(allocator().platform()), *CARD.lock());
    let stopped = space.ok().zip(card).is_some_and(|(space, card)| {
        let command = PciHeader::new(card).command(&space);
        !command.contains(CommandRegister::BUS_MASTER_ENABLE)
    });
    if !stopped {
        FREED_TOO_EARLY.fetch_add(1, Ordering::Relaxed);
    }
}
