//! What a device counts.

use core::array;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::dma::AllocError;
use crate::dma::counters::Source;

/// Why a request of a driver failed, in few causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureCause {
    /// No memory can satisfy the request.
    Request,
    /// The caller must not sleep, and nothing serves at once.
    MustNotSleep,
    /// The guest has too little free memory.
    GuestMemory,
    /// Xen refused, or has no such memory.
    Xen,
    /// No memory lies within the device's reach.
    OutOfReach,
    /// The kernel has no memory for another record.
    Records,
    /// Other machine frames back the memory since a restore.
    Moved,
}

impl FailureCause {
    /// All causes, in the order of a report.
    pub const ALL: [Self; 7] = [
        Self::Request,
        Self::MustNotSleep,
        Self::GuestMemory,
        Self::Xen,
        Self::OutOfReach,
        Self::Records,
        Self::Moved,
    ];

    /// Returns the cause of an error.
    pub const fn of(error: &AllocError) -> Self {
        match error {
            AllocError::ZeroSize
            | AllocError::TooLarge { .. }
            | AllocError::Constraints(_)
            | AllocError::SegmentTooLong { .. }
            | AllocError::CrossesBoundary { .. }
            | AllocError::SegmentBelowAlignment { .. }
            | AllocError::TooManySegments { .. }
            | AllocError::LargerThanReach { .. }
            | AllocError::NodeUnknown { .. }
            | AllocError::MemoryInUseStays => Self::Request,
            AllocError::MustNotSleep => Self::MustNotSleep,
            AllocError::NoGuestMemory { .. } | AllocError::NoListMemory { .. } => Self::GuestMemory,
            AllocError::OutOfReach { .. } | AllocError::NoFramesInReach { .. } => Self::OutOfReach,
            AllocError::RecordsFull { .. } | AllocError::NoRecordMemory { .. } => Self::Records,
            AllocError::OrderNotPermitted { .. }
            | AllocError::NoMemoryOnNode { .. }
            | AllocError::Exchange(_)
            | AllocError::Lost { .. }
            | AllocError::AboveMaximum { .. }
            | AllocError::NoExchange(_) => Self::Xen,
        }
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "no memory can satisfy it",
            Self::MustNotSleep => "must not sleep",
            Self::GuestMemory => "no guest memory",
            Self::Xen => "Xen refused",
            Self::OutOfReach => "out of reach",
            Self::Records => "no record",
            Self::Moved => "moved",
        })
    }
}

/// What a device counted so far.
///
/// The figures are read one after the other. While other vCPUs allocate, they need not belong to one
/// moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceCounts {
    /// Buffers asked for, served or not. A set counts each of its buffers.
    pub requests: u64,
    /// Buffers that the reserve served.
    pub from_reserve: u64,
    /// Buffers that the kernel's free memory served as it was.
    pub adopted: u64,
    /// Buffers that needed an exchange or a refill.
    pub exchanged: u64,
    /// Mappings that the device accesses in place.
    pub direct_mappings: u64,
    /// Bytes that the device accesses in place, in all mappings.
    pub direct_bytes: u64,
    /// Mappings of which a part is bounced.
    pub bounced_mappings: u64,
    /// Bytes of them that are bounced.
    pub bounced_bytes: u64,
    /// Mappings that have not ended. One that was forgotten stays live.
    ///
    /// [`Device::unmap_raw`](super::Device::unmap_raw) ends one at each call, also of memory that was not
    /// mapped.
    pub live_mappings: u64,
    failures: [u64; FailureCause::ALL.len()],
}

impl DeviceCounts {
    /// Returns the number of requests and mappings that failed for a cause.
    pub const fn failures_by(&self, cause: FailureCause) -> u64 {
        self.failures[cause as usize]
    }

    /// Returns the number of all requests and mappings that failed.
    pub fn failures(&self) -> u64 {
        self.failures.iter().sum()
    }
}

/// The counters of a device.
///
/// Nothing is ordered by them, so `loom` need not try every order of their loads.
#[derive(Debug)]
pub(in crate::dma) struct DeviceCounters {
    requests: AtomicU64,
    by_source: [AtomicU64; 3],
    direct: [AtomicU64; 2],
    bounced: [AtomicU64; 2],
    live_mappings: AtomicU64,
    failures: [AtomicU64; FailureCause::ALL.len()],
}

impl DeviceCounters {
    pub fn new() -> Self {
        const fn zeros<const N: usize>() -> [AtomicU64; N] {
            [const { AtomicU64::new(0) }; N]
        }
        Self {
            requests: AtomicU64::new(0),
            by_source: zeros(),
            direct: zeros(),
            bounced: zeros(),
            live_mappings: AtomicU64::new(0),
            failures: zeros(),
        }
    }

    pub fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub fn count_served(&self, source: Source) {
        self.by_source[source as usize].fetch_add(1, Relaxed);
    }

    pub fn count_failure(&self, cause: FailureCause) {
        self.failures[cause as usize].fetch_add(1, Relaxed);
    }

    /// Counts a mapping that begins. It is live until the guard is dropped, or until
    /// [`end_mapping`](Self::end_mapping) if the guard is forgotten.
    pub fn begin_mapping(&self) -> MappingGuard<'_> {
        self.live_mappings.fetch_add(1, Relaxed);
        MappingGuard(self)
    }

    /// Counts the end of a mapping. Drivers can unmap what they did not map, so the number stops at 0.
    pub fn end_mapping(&self) {
        let _live = self.live_mappings.fetch_update(Relaxed, Relaxed, |live| live.checked_sub(1));
    }

    /// Counts a mapping of `bytes` bytes, of which `bounced` are bounced.
    pub fn count_mapping(&self, bytes: u64, bounced: u64) {
        let [mappings, _] = if bounced == 0 { &self.direct } else { &self.bounced };
        mappings.fetch_add(1, Relaxed);
        self.direct[1].fetch_add(bytes - bounced, Relaxed);
        self.bounced[1].fetch_add(bounced, Relaxed);
    }

    /// Returns the figures so far.
    pub fn counts(&self) -> DeviceCounts {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let [from_reserve, adopted, exchanged] = array::from_fn(|at| load(&self.by_source[at]));
        let [direct_mappings, direct_bytes] = array::from_fn(|at| load(&self.direct[at]));
        let [bounced_mappings, bounced_bytes] = array::from_fn(|at| load(&self.bounced[at]));
        DeviceCounts {
            requests: load(&self.requests),
            from_reserve,
            adopted,
            exchanged,
            direct_mappings,
            direct_bytes,
            bounced_mappings,
            bounced_bytes,
            live_mappings: load(&self.live_mappings),
            failures: array::from_fn(|at| load(&self.failures[at])),
        }
    }
}

/// A live mapping, which its device counts.
#[derive(Debug)]
pub(in crate::dma) struct MappingGuard<'d>(&'d DeviceCounters);

impl Drop for MappingGuard<'_> {
    fn drop(&mut self) {
        self.0.end_mapping();
    }
}
