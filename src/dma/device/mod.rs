//! Devices, and what their drivers have. [`Device`] has the documentation.

mod counters;
mod in_use;
pub(super) mod live;
mod moved;
mod name;
mod owner;
mod raw;
mod raw_mapping;
mod report;

pub(super) use counters::{DeviceCounters, MappingGuard};
pub use counters::{DeviceCounts, FailureCause};
pub use in_use::StillInUse;
pub use live::{BufferKind, LiveBuffer};
pub use moved::{BuffersMoved, MovedBuffer};
pub use name::DeviceName;
pub use owner::Device;
pub use raw::NotLent;
pub use raw_mapping::RawMapping;
pub use report::DeviceReport;
