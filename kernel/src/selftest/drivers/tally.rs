//! The cost of a driver's test, as one line for the test bed.

use core::cell::Cell;

use crate::drivers::memory::{self, MemoryCounts, allocator};
use crate::say;
use crate::vcpu::xen;

/// The cost of a driver's test since it began. It must live longer than the driver.
pub struct DriverTally {
    driver: &'static str,
    /// The number of bytes that the device moved for the driver's user.
    bytes: Cell<u64>,
    before: MemoryCounts,
    calls: u64,
}

impl DriverTally {
    /// Starts to count for a driver. Callers set up the memory of drivers before.
    pub fn start(driver: &'static str) -> Self {
        Self { driver, bytes: Cell::new(0), before: memory::counts(), calls: xen().calls() }
    }

    /// Counts bytes that the device moved.
    pub fn moved(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// Prints the line, which the test bed reads.
    pub fn print(&self) {
        let (calls, now) = (xen().calls() - self.calls, memory::counts());
        say!(
            "drivers: driver={} bytes={} exchanged={} direct={} bounced={} hypercalls={calls}",
            self.driver,
            self.bytes.get(),
            now.exchanged - self.before.exchanged,
            now.direct - self.before.direct,
            now.bounced - self.before.bounced,
        );
    }
}

impl Drop for DriverTally {
    /// Frees what the driver has freed, so that a test that fails leaves nothing to the next.
    fn drop(&mut self) {
        // `is_balanced` reports errors, unless the test has failed already.
        let _trimmed = allocator().trim(u64::MAX);
    }
}
