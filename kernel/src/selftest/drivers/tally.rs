//! The cost of a driver's test, as one line for the test bed.

use alloc::borrow::ToOwned;
use alloc::string::ToString;
use core::cell::Cell;

use hypercall::trace::Hypercall;

use crate::drivers::memory::{self, MemoryCounts, allocator};
use crate::pci::InterruptCounts;
use crate::say;
use crate::selftest::{Check, fail};
use crate::vcpu::xen;

/// The cost of a driver's test since it began. It must live longer than the driver.
pub struct DriverTally {
    driver: &'static str,
    /// The number of bytes that the device moved for the driver's user.
    bytes: Cell<u64>,
    before: MemoryCounts,
    calls: u64,
    interrupts: InterruptCounts,
    /// The number of calls of `physdev_op`, by which interrupts are ended.
    physdev_calls: u64,
}

impl DriverTally {
    /// Starts to count for a driver. Callers set up the memory of drivers before.
    pub fn start(driver: &'static str) -> Self {
        Self {
            driver,
            bytes: Cell::new(0),
            before: memory::counts(),
            calls: xen().calls(),
            interrupts: InterruptCounts::now(),
            physdev_calls: physdev_calls(),
        }
    }

    /// Counts bytes that the device moved.
    pub fn moved(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Prints the line, which the test bed reads, and checks the interrupts of the driver.
    pub fn finish(&self) -> Check {
        let (calls, now) = (xen().calls() - self.calls, memory::counts());
        let counts = InterruptCounts::now().since(self.interrupts);
        let interrupts = match counts.polled() {
            true => "polling".to_owned(),
            false => counts.arrived.to_string(),
        };
        say!(
            "drivers: driver={} bytes={} exchanged={} direct={} bounced={} hypercalls={calls} \
             interrupts={interrupts}",
            self.driver,
            self.bytes.get(),
            now.exchanged - self.before.exchanged,
            now.direct - self.before.direct,
            now.bounced - self.before.bounced,
        );
        self.check(counts)
    }

    /// Fails if an interrupt was bound and none arrived, or if the driver did not report the end of each to Xen.
    ///
    /// Xen itself ends an interrupt after a millisecond (`irq_guest_eoi_timer_fn` in Xen's `irq.c`), so a
    /// missing end only makes the driver slow.
    fn check(&self, counts: InterruptCounts) -> Check {
        let InterruptCounts { queried, bound, arrived, needed_end, spurious, .. } = counts;
        if counts.polled() {
            return Ok(());
        }
        say!("# {}: {arrived} interrupts, {spurious} of them spurious", self.driver);
        if arrived == spurious {
            fail!(
                "the interrupt was bound {bound} times, but {arrived} arrived, {spurious} of them spurious"
            );
        }
        // The other calls ask for the status of an interrupt, also of one that Xen then does not bind.
        let ended = (physdev_calls() - self.physdev_calls).saturating_sub(queried);
        if ended != needed_end {
            fail!("{needed_end} interrupts need an end, but the driver ended {ended}");
        }
        Ok(())
    }
}

/// Returns how many times this vCPU has called `physdev_op`.
fn physdev_calls() -> u64 {
    xen().summary().row(Hypercall::PhysdevOp).calls
}

impl Drop for DriverTally {
    /// Frees what the driver has freed, so that a test that fails leaves nothing to the next.
    fn drop(&mut self) {
        // `is_balanced` reports errors, unless the test has failed already.
        let _trimmed = allocator().trim(u64::MAX);
    }
}
