//! What a device reports about itself.

use core::fmt;

use super::{Device, DeviceCounts, DeviceName, FailureCause, LiveBuffer};
use crate::dma::Constraints;
use crate::platform::Platform;

/// The state of a device: name, limits, counters and live buffers.
///
/// Printed, it is a table of several lines. The counters are those of the moment when the report was made,
/// and the live buffers are those of the moment when they are visited. Each buffer is reported as it was
/// at one moment; one that is being allocated or freed is left out.
pub struct DeviceReport<'d, P: Platform> {
    device: &'d Device<'d, P>,
    counts: DeviceCounts,
}

impl<'d, P: Platform> DeviceReport<'d, P> {
    pub(super) fn new(device: &'d Device<'d, P>) -> Self {
        Self { device, counts: device.counters.counts() }
    }

    /// Returns the name of the device.
    pub const fn name(&self) -> DeviceName {
        self.device.name()
    }

    /// Returns what the device can reach.
    pub const fn limits(&self) -> &'d Constraints {
        self.device.limits()
    }

    /// Returns what the device counted.
    pub const fn counts(&self) -> &DeviceCounts {
        &self.counts
    }

    /// Iterates over the live buffers. Visits every record.
    pub fn live(&self) -> impl Iterator<Item = LiveBuffer> + 'd {
        self.device.records.visit(|entry| entry.buffer())
    }
}

impl<P: Platform> Device<'_, P> {
    /// Returns the state of the device: name, limits, counters and live buffers.
    ///
    /// Makes no hypercall, takes no lock and does not sleep. An interrupt handler may call it.
    pub fn report(&self) -> DeviceReport<'_, P> {
        DeviceReport::new(self)
    }

    /// Returns the number of live buffers.
    pub fn live(&self) -> usize {
        self.report().live().count()
    }
}

impl<P: Platform> fmt::Debug for DeviceReport<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.device, f)
    }
}

impl<P: Platform> fmt::Display for DeviceReport<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "device {}: {}", self.name(), self.limits())?;
        writeln!(
            f,
            "  requests: {}; {} from the reserve, {} from free memory, {} exchanged",
            counts.requests, counts.from_reserve, counts.adopted, counts.exchanged
        )?;
        writeln!(
            f,
            "  mappings: {} direct ({} bytes), {} bounced ({} bytes)",
            counts.direct_mappings,
            counts.direct_bytes,
            counts.bounced_mappings,
            counts.bounced_bytes
        )?;
        write!(f, "  failures: {}", counts.failures())?;
        let by_cause = FailureCause::ALL.map(|cause| (cause, counts.failures_by(cause)));
        let mut separator = "; ";
        for (cause, count) in by_cause.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{count} {cause}")?;
            separator = ", ";
        }
        writeln!(f)?;
        let (mut buffers, mut bytes) = (0_u64, 0_u64);
        for LiveBuffer { tag, len, dma, .. } in self.live() {
            if buffers == 0 {
                writeln!(f, "  {:<20} {:>12}  device address", "live buffer", "bytes")?;
            }
            let tag = if tag.is_empty() { "untagged" } else { tag };
            writeln!(f, "  {tag:<20} {len:>12}  {dma}")?;
            buffers += 1;
            bytes += len;
        }
        writeln!(f, "  live buffers: {buffers} ({bytes} bytes)")?;
        write!(f, "  live mappings: {}", counts.live_mappings)
    }
}
