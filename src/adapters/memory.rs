//! The memory of a device, which all adapters share.

use core::fmt;
use core::ptr::NonNull;

use super::driver_memory::DriverMemory;
use super::live::{self, Claim, Key, LiveSlot};
use super::moved::{MovedBuffer, Purpose};
use crate::addr::{DmaAddr, PAGE_SIZE, Pfn, PseudoPhysAddr};
use crate::dma::{
    AllocError, Allocator, ConstraintError, Constraints, Pool, PoolError, PoolObject,
};
use crate::paging::GuestMemory;
use crate::platform::Platform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The memory of one device, or of several with the same constraints.
///
/// The embedder keeps it in a `static`, because drivers name its buffers by addresses alone. Every
/// device address that it hands out is above 0, because driver crates read 0 as "no memory".
pub struct DeviceMemory<P: Platform + 'static> {
    allocator: &'static Allocator<P>,
    constraints: Constraints,
    live: &'static [LiveSlot<P>],
    bounce: Option<&'static dyn BouncePool<P>>,
}

/// A source of bounce buffers that is tried before the allocator: a [`Pool`].
pub trait BouncePool<P: Platform>: Sync {
    /// Allocates a bounce buffer without a hypercall.
    ///
    /// # Errors
    /// If all objects are in use.
    fn bounce(&'static self) -> Result<PoolObject<'static, P>, PoolError>;

    /// Returns the size of each bounce buffer in bytes.
    fn bytes(&self) -> u64;
}

impl<P: Platform + Sync> BouncePool<P> for Pool<'static, P> {
    fn bounce(&'static self) -> Result<PoolObject<'static, P>, PoolError> {
        self.alloc_atomic()
    }

    fn bytes(&self) -> u64 {
        self.config().size()
    }
}

/// Why a call of an adapter failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterError {
    /// Every slot has a buffer.
    NoSlot {
        /// The number of slots.
        slots: usize,
    },
    /// The allocator failed.
    Alloc(AllocError),
    /// The driver frees memory that it does not have.
    NotLent {
        /// The device address that the driver named.
        dma: DmaAddr,
    },
    /// Other machine frames back buffers of drivers.
    ///
    /// The domain was saved and restored, or migrated.
    Moved {
        /// The number of these buffers.
        buffers: usize,
        /// The first of them.
        first: MovedBuffer,
    },
}

impl AdapterError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Drivers can free buffers, and then a slot or memory is available again.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoSlot { .. } => true,
            Self::Alloc(error) => error.is_transient(),
            Self::NotLent { .. } | Self::Moved { .. } => false,
        }
    }
}

impl fmt::Display for AdapterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlot { slots } => {
                write!(f, "all {slots} slots for buffers of drivers are in use: make more slots")
            }
            Self::Alloc(error) => error.fmt(f),
            Self::NotLent { dma } => write!(
                f,
                "no buffer at {dma} with this pointer is allocated, or the driver freed it already"
            ),
            Self::Moved { buffers, first } => write!(
                f,
                "{buffers} buffers that drivers have were moved: reset the devices and set up the \
                 drivers again; the first has {first}"
            ),
        }
    }
}

impl core::error::Error for AdapterError {}

impl From<AllocError> for AdapterError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

impl<P: Platform> fmt::Debug for DeviceMemory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({} of {} slots in use)", self.live(), self.live.len())
    }
}

impl<P: Platform> DeviceMemory<P> {
    /// Returns the memory of a device with these constraints.
    ///
    /// Each buffer of a driver takes one slot of `live`, which no other `DeviceMemory` may use. The
    /// number of segments in `constraints` is ignored, because drivers have one address for a buffer.
    ///
    /// # Errors
    /// If the constraints leave no page above address 0.
    pub fn new(
        allocator: &'static Allocator<P>,
        constraints: &Constraints,
        live: &'static [LiveSlot<P>],
    ) -> Result<Self, ConstraintError> {
        let constraints = constraints
            .to_builder()
            .lowest(constraints.lowest().max(PAGE))
            .max_segments(1)
            .build()?;
        Ok(Self { allocator, constraints, live, bounce: None })
    }

    /// Takes bounce buffers from `pool` before the allocator is asked.
    ///
    /// The pool serves a buffer that fits in an object, if the device reaches the object. Drivers may
    /// then share small buffers where they must not make a hypercall.
    #[must_use]
    pub fn with_bounce(self, pool: &'static dyn BouncePool<P>) -> Self {
        Self { bounce: Some(pool), ..self }
    }

    pub(super) const fn allocator(&self) -> &'static Allocator<P> {
        self.allocator
    }

    pub(super) const fn slots(&self) -> &'static [LiveSlot<P>] {
        self.live
    }

    /// Returns the constraints of the device.
    pub const fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// Returns how many buffers drivers have, allocated and bounced.
    pub fn live(&self) -> usize {
        live::count(self.live)
    }

    /// Allocates `size` bytes. The two addresses that it returns identify them.
    pub(super) fn alloc(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Result<(DmaAddr, NonNull<u8>), AdapterError> {
        // Claim the slot first, so that Xen exchanges no frames for a buffer that has no slot.
        let claim = self.claim()?;
        let buffer = DriverMemory::Buffer(self.allocator.alloc_coherent(size, constraints)?);
        let cpu = buffer.as_ptr();
        let key = claim.keep(Purpose::Allocated, cpu, buffer);
        Ok((key.dma(), cpu))
    }

    /// Frees the memory that [`alloc`](Self::alloc) returned with these addresses.
    pub(super) fn free(&self, dma: DmaAddr, cpu: NonNull<u8>) -> Result<(), AdapterError> {
        let memory = self.take(Purpose::Allocated, Key::new(cpu, dma));
        memory.map(drop).ok_or(AdapterError::NotLent { dma })
    }

    fn take(&self, purpose: Purpose, key: Key) -> Option<DriverMemory<P>> {
        live::take(self.live, purpose, key, self.allocator.platform().p2m())
    }

    /// Returns the device address of `bytes` if the device can access them in place.
    ///
    /// Returns `None` if they lie outside the linear mapping, if they are not contiguous in the
    /// machine, or if the constraints exclude them.
    pub fn translate(&self, bytes: NonNull<[u8]>, constraints: &Constraints) -> Option<DmaAddr> {
        let (memory, p2m) = (self.allocator.platform().memory(), self.allocator.platform().p2m());
        let address = |pointer: *mut u8| pointer.addr() as u64;
        let (base, len) = (address(memory.pointer(Pfn::new(0))), bytes.len() as u64);
        // The provenance is exposed because the device accesses the bytes by this address, which the
        // compiler does not see.
        let exposed = bytes.cast::<u8>().as_ptr().expose_provenance() as u64;
        let at = PseudoPhysAddr::new(exposed.checked_sub(base)?);
        let last = at.checked_add(len.checked_sub(1)?)?.frame();
        let start = p2m.gfn(at.frame())?;
        let mut pages = at.frame().number()..=last.number();
        let in_line = pages.all(|number| {
            let (pfn, page) = (Pfn::new(number), number - at.frame().number());
            // The processor must reach this frame at this address. The kernel can map something else
            // after the end of the guest's memory.
            // The length of a raw slice can exceed the address space, so the arithmetic wraps.
            address(memory.pointer(pfn)) == base.wrapping_add(number.wrapping_mul(PAGE))
                && p2m.gfn(pfn) == Some(start.add(page))
        });
        let dma = DmaAddr::of(start).checked_add(at.offset() as u64)?;
        (in_line && constraints.admits(dma.get(), len)).then_some(dma)
    }

    /// Makes a bounce buffer for the driver's `bytes`, and calls `fill` with it.
    ///
    /// The driver's own address and the device address that this returns identify the bounce buffer. It
    /// also returns where the processor reaches the bounce buffer.
    pub(super) fn bounce(
        &self,
        bytes: NonNull<[u8]>,
        constraints: &Constraints,
        fill: impl FnOnce(&mut DriverMemory<P>),
    ) -> Result<(DmaAddr, NonNull<u8>), AdapterError> {
        let claim = self.claim()?;
        let len = bytes.len() as u64;
        let pool = self.bounce.filter(|pool| len <= pool.bytes());
        let object = pool.and_then(|pool| pool.bounce().ok());
        // Any type can be a pool, and `BouncePool::bytes` may be wrong. So the object's own length
        // decides.
        let object = object.filter(|object| {
            len <= object.len() && constraints.admits(object.dma_addr().get(), len)
        });
        let mut memory = match object {
            Some(object) => DriverMemory::Object(object),
            None => DriverMemory::Buffer(self.allocator.alloc_coherent(len, constraints)?),
        };
        fill(&mut memory);
        let pointer = memory.as_ptr();
        let key = claim.keep(Purpose::Bounce, bytes.cast(), memory);
        Ok((key.dma(), pointer))
    }

    /// Takes the bounce buffer for the driver's memory at `bytes` out of its slot. Returns `None` if no
    /// slot has it with this device address.
    pub(super) fn unbounce(&self, dma: DmaAddr, bytes: NonNull<u8>) -> Option<DriverMemory<P>> {
        self.take(Purpose::Bounce, Key::new(bytes, dma))
    }

    fn claim(&self) -> Result<Claim<'static, P>, AdapterError> {
        Claim::any(self.live).ok_or(AdapterError::NoSlot { slots: self.live.len() })
    }
}

impl<P: Platform> DeviceMemory<P> {
    /// Returns the buffers of drivers that other machine frames back now.
    ///
    /// This includes the bounce buffers in use. A save and restore, or a migration, can move buffers
    /// ([C75](crate::conformance#C75)).
    pub fn moved_buffers(&self) -> impl Iterator<Item = MovedBuffer> {
        let p2m = self.allocator().platform().p2m();
        self.slots().iter().filter_map(move |slot: &LiveSlot<P>| live::moved(slot, p2m))
    }

    /// Checks that every buffer of a driver is still at its device address.
    ///
    /// For a kernel that was saved and restored or migrated. Call it when the P2M is up to date again
    /// and before devices run. It does not sleep and waits for no other call.
    ///
    /// This includes the bounce buffers in use. Memory that a driver shared in place is not checked,
    /// because no slot has it. The free objects of a bounce pool are not checked either: the pool
    /// does not hand out an object that moved.
    ///
    /// # Errors
    /// [`AdapterError::Moved`]: how many buffers moved, and the first of them.
    pub fn check_in_place(&self) -> Result<(), AdapterError> {
        let mut moved = self.moved_buffers();
        match moved.next() {
            None => Ok(()),
            Some(first) => Err(AdapterError::Moved { buffers: 1 + moved.count(), first }),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::dma::Moved;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        let dma = DmaAddr::new(0x5000);
        let moved = Moved { offset: 9, device_address: dma, found: None };
        let first = MovedBuffer { dma, len: 64, purpose: Purpose::Bounce, moved };
        let table = [
            (AdapterError::NoSlot { slots: 64 }, "all 64 slots"),
            (AdapterError::Alloc(AllocError::MustNotSleep), "use a pool"),
            (AdapterError::Alloc(AllocError::ZeroSize), "at least one byte"),
            (AdapterError::NotLent { dma }, "no buffer at 0x5000"),
            (AdapterError::Moved { buffers: 2, first }, "2 buffers that drivers have were moved"),
        ];
        for (error, words) in table {
            assert!(error.to_string().contains(words), "{error}");
            let transient = match error {
                AdapterError::NoSlot { .. } => true,
                AdapterError::Alloc(error) => error == AllocError::MustNotSleep,
                AdapterError::NotLent { .. } | AdapterError::Moved { .. } => false,
            };
            assert_eq!(error.is_transient(), transient, "{error}");
        }
    }
}
