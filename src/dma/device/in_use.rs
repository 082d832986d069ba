//! Buffers that outlive their device.

use core::fmt;

use super::{DeviceName, LiveBuffer};

/// A device was closed while its driver had buffers. Their frames are leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillInUse {
    /// The device.
    pub device: DeviceName,
    /// The number of buffers.
    pub buffers: u64,
    /// Bytes of all buffers together.
    pub bytes: u64,
    /// The first of them.
    pub first: LiveBuffer,
}

impl StillInUse {
    pub(super) const fn new(device: DeviceName, first: &LiveBuffer) -> Self {
        Self { device, buffers: 0, bytes: 0, first: *first }
    }

    pub(super) const fn add(&mut self, buffer: &LiveBuffer) {
        self.buffers += 1;
        self.bytes += buffer.len;
    }
}

impl fmt::Display for StillInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, buffers, bytes, first } = self;
        let s = if *buffers == 1 { "" } else { "s" };
        write!(
            f,
            "device {device} was closed with {buffers} buffer{s} of {bytes} bytes, whose memory is lost: \
             free them before; the first is {first}"
        )
    }
}

impl core::error::Error for StillInUse {}
