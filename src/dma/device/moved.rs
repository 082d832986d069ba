//! Buffers of a device that other machine frames back since a restore.

use core::fmt;

use super::live::LiveEntry;
use super::{Device, DeviceName, LiveBuffer};
use crate::dma::Moved;
use crate::platform::Platform;

/// A live buffer that other machine frames back now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBuffer {
    /// The buffer. Its device address is the one that the device received.
    pub buffer: LiveBuffer,
    /// The first byte that is not at its device address.
    pub moved: Moved,
}

impl fmt::Display for MovedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.buffer, self.moved)
    }
}

/// Other machine frames back buffers of a device: the domain was saved and restored, or migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuffersMoved {
    /// The device.
    pub device: DeviceName,
    /// The number of these buffers.
    pub buffers: usize,
    /// The first of them.
    pub first: MovedBuffer,
}

impl fmt::Display for BuffersMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, buffers, first } = self;
        write!(
            f,
            "{buffers} buffers of device {device} were moved: reset the device and set up its driver again; \
             the first is {first}"
        )
    }
}

impl core::error::Error for BuffersMoved {}

impl<P: Platform> Device<'_, P> {
    /// Iterates over the live buffers that other machine frames back now.
    ///
    /// A save and restore, or a migration, can move buffers ([C75](crate::conformance#C75)).
    pub fn moved_buffers(&self) -> impl Iterator<Item = MovedBuffer> {
        let moved = |entry: &LiveEntry| {
            self.find_moved(entry).map(|moved| MovedBuffer { buffer: entry.buffer(), moved })
        };
        self.records.visit(moved).flatten()
    }

    /// Checks that every live buffer is still at its device address: coherent buffers, chunks of pools and
    /// memory that a driver holds by its addresses.
    ///
    /// For a kernel that was saved and restored or migrated. Call it when the P2M is up to date again and
    /// before devices run. It does not sleep. For a buffer of several pieces it takes the lock of the reserve
    /// for a moment per piece.
    ///
    /// # Errors
    /// [`BuffersMoved`]: how many buffers moved, and the first of them.
    pub fn check_in_place(&self) -> Result<(), BuffersMoved> {
        let mut moved = self.moved_buffers();
        match moved.next() {
            None => Ok(()),
            Some(first) => {
                Err(BuffersMoved { device: self.name(), buffers: 1 + moved.count(), first })
            }
        }
    }

    /// Returns the first byte of a buffer that is not at the address that the device received.
    pub(super) fn find_moved(&self, entry: &LiveEntry) -> Option<Moved> {
        match entry.origin {
            Some(_) => entry.range.check_in_place(self.allocator().platform().p2m()).err(),
            None => self.allocator().find_moved_piece(&entry.range),
        }
    }
}
