//! What the save and restore, or the migration, of the domain does to memory of drivers
//! ([C75](crate::conformance#C75)).

use core::fmt;

use super::live::{self, Purpose};
use super::{AdapterError, DeviceMemory, LiveSlot};
use crate::addr::DmaAddr;
use crate::dma::Moved;
use crate::platform::Platform;

/// A buffer of a driver's whose machine frames are not what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedBuffer {
    /// The address by which the driver knows it.
    pub dma: DmaAddr,
    /// How many bytes; of a bounce buffer out of a pool, as many as its objects have.
    pub len: u64,
    /// What the driver has it for.
    pub purpose: Purpose,
    /// The first byte that the device would not find.
    pub moved: Moved,
}

impl fmt::Display for MovedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dma, len, purpose, moved } = self;
        let purpose = match purpose {
            Purpose::Allocated => "allocated",
            Purpose::Bounce => "a bounce buffer",
        };
        write!(f, "{len} bytes at {dma}, {purpose}: {moved}")
    }
}

impl<P: Platform> DeviceMemory<P> {
    /// The buffers that drivers have, allocated and bounced, whose machine frames are not what they
    /// were ([C75](crate::conformance#C75)).
    pub fn moved_buffers(&self) -> impl Iterator<Item = MovedBuffer> {
        let p2m = self.allocator().platform().p2m();
        self.slots().iter().filter_map(move |slot: &LiveSlot<P>| live::moved(slot, p2m))
    }

    /// Checks that every buffer that drivers have, allocated and bounced, is still where the device
    /// was told. For a kernel that was saved and restored or migrated, once its P2M is up to date
    /// again and before devices run. Waits for nobody.
    ///
    /// What a driver shared in place is its own memory and not known here. A bounce pool looks
    /// after itself: it hands out nothing that moved.
    ///
    /// # Errors
    /// [`AdapterError::Moved`]: how many moved, and the first of them.
    pub fn check_in_place(&self) -> Result<(), AdapterError> {
        let mut moved = self.moved_buffers();
        match moved.next() {
            None => Ok(()),
            Some(first) => Err(AdapterError::Moved { buffers: 1 + moved.count(), first }),
        }
    }
}
