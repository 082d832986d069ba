//! What a driver asks for.

use super::ConstraintError;
use super::constraints::{Constraints, ConstraintsBuilder, Sleep};

/// A buffer that a driver asks for: a size, a tag, and limits of this buffer beyond those of the device.
///
/// A size alone is a request, too:
/// ```
/// use xen_contig::dma::{AllocError, Device, Request, Sleep};
/// use xen_contig::platform::Platform;
///
/// fn rings<P: Platform>(nic: &Device<'_, P>) -> Result<(), AllocError> {
///     let ring = nic.alloc_coherent(Request::new(16 << 10).tag("rx ring").align(16 << 10))?;
///     let status = nic.alloc_coherent(64)?;
///     # drop((ring, status));
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a request has no effect until it is passed to a device"]
pub struct Request {
    size: u64,
    tag: &'static str,
    limits: ConstraintsBuilder,
}

impl Request {
    /// Starts from `size` bytes without a tag, anywhere within the device's limits.
    pub fn new(size: u64) -> Self {
        Self { size, tag: "", limits: Constraints::builder() }
    }

    /// Starts from a tag, for a value whose type decides the size.
    pub fn tagged(tag: &'static str) -> Self {
        Self::new(0).tag(tag)
    }

    /// Replaces the size.
    pub(super) const fn with_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// Says what the buffer is for, in reports of the device.
    pub const fn tag(self, tag: &'static str) -> Self {
        Self { tag, ..self }
    }

    /// Sets what each segment's address is a multiple of. The device's alignment holds if it is larger.
    pub const fn align(self, align: u64) -> Self {
        Self { limits: self.limits.align(align), ..self }
    }

    /// Sets the most segments. The device's number holds if it is smaller.
    pub const fn max_segments(self, segments: usize) -> Self {
        Self { limits: self.limits.max_segments(segments), ..self }
    }

    /// Says whether the caller may wait for hypercalls.
    pub const fn sleep(self, sleep: Sleep) -> Self {
        Self { limits: self.limits.sleep(sleep), ..self }
    }

    /// Replaces all limits of the request. The stricter one of these and the device's holds.
    pub const fn within(self, limits: &Constraints) -> Self {
        Self { limits: limits.to_builder(), ..self }
    }

    /// Returns the bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns what the buffer is for; empty if nothing was said.
    pub(super) const fn tag_text(&self) -> &'static str {
        self.tag
    }

    /// Returns the limits of the request.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn limits(&self) -> Result<Constraints, ConstraintError> {
        self.limits.build()
    }
}

impl From<&'static str> for Request {
    fn from(tag: &'static str) -> Self {
        Self::tagged(tag)
    }
}

impl From<u64> for Request {
    fn from(size: u64) -> Self {
        Self::new(size)
    }
}
