//! Buffers and mappings that outlive their device.

use core::fmt;

use super::{DeviceName, LiveBuffer};

/// A device was closed while its driver had buffers or mappings. The frames of the buffers are leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillInUse {
    /// The device.
    pub device: DeviceName,
    /// The number of buffers.
    pub buffers: u64,
    /// Bytes of all buffers together.
    pub bytes: u64,
    /// The first of them; `None` if there are mappings alone.
    pub first: Option<LiveBuffer>,
    /// The number of mappings. Those that are bounced by [`Device::map_raw`] are buffers, too.
    ///
    /// [`Device::map_raw`]: super::Device::map_raw
    pub mappings: u64,
}

impl StillInUse {
    pub(super) const fn new(device: DeviceName, mappings: u64) -> Self {
        Self { device, buffers: 0, bytes: 0, first: None, mappings }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.buffers == 0 && self.mappings == 0
    }

    pub(super) fn add(&mut self, buffer: &LiveBuffer) {
        self.buffers += 1;
        self.bytes += buffer.len;
        self.first.get_or_insert(*buffer);
    }
}

impl fmt::Display for StillInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, buffers, bytes, first, mappings } = self;
        let words = |count: u64| if count == 1 { ("", "it") } else { ("s", "them") };
        write!(f, "device {device} was closed with ")?;
        if *mappings > 0 {
            let (s, them) = words(*mappings);
            write!(f, "{mappings} live mapping{s}: drop or unmap {them} before")?;
        }
        let Some(first) = first else { return Ok(()) };
        if *mappings > 0 {
            f.write_str("; and with ")?;
        }
        let (s, them) = words(*buffers);
        write!(
            f,
            "{buffers} buffer{s} of {bytes} bytes, whose memory is lost: free {them} before; the first is \
             {first}"
        )
    }
}

impl core::error::Error for StillInUse {}
