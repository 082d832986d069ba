//! What the adapters share.

use core::fmt;
use core::ptr::NonNull;

use super::lent::Memory;
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
/// Made once and kept in a `static`, because drivers name what they get of it by addresses alone.
/// Every device address that it hands out is above 0, which stands for "none" in driver crates.
pub struct DeviceMemory<P: Platform + 'static> {
    allocator: &'static Allocator<P>,
    constraints: Constraints,
    live: &'static [LiveSlot<P>],
    bounce: Option<&'static dyn BouncePool<P>>,
}

/// Where bounce buffers come from before the allocator is asked: a [`Pool`].
pub trait BouncePool<P: Platform>: Sync {
    /// A bounce buffer, without a hypercall.
    ///
    /// # Errors
    /// All are taken.
    fn bounce(&'static self) -> Result<PoolObject<'static, P>, PoolError>;

    /// Bytes of each.
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

/// Why there is no memory for a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdapterError {
    /// More buffers at a time than there are slots to remember them in.
    NoSlot {
        /// How many slots there are.
        slots: usize,
    },
    /// The allocator has none.
    Alloc(AllocError),
    /// The driver gave back memory that it does not have.
    NotLent {
        /// The device address that it named.
        dma: DmaAddr,
    },
    /// Other machine frames back buffers that drivers have: the domain was saved and restored, or
    /// migrated.
    Moved {
        /// How many buffers.
        buffers: usize,
        /// The first that was found.
        first: MovedBuffer,
    },
}

impl AdapterError {
    /// Returns true if the same call can succeed later although its caller changes nothing.
    ///
    /// Drivers can give buffers back, and the allocator can have memory again.
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
                write!(f, "all {slots} slots for buffers of drivers are in use: make more")
            }
            Self::Alloc(error) => error.fmt(f),
            Self::NotLent { dma } => write!(
                f,
                "no buffer at {dma} with this pointer is lent to a driver, or it was given back already"
            ),
            Self::Moved { buffers, first } => write!(
                f,
                "{buffers} buffers that drivers have were moved: reset the devices and set the \
                 drivers up anew; the first is of {first}"
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
    /// Memory as `constraints` has it for the device, of which `live` remembers what drivers have.
    /// The slots are for this alone.
    ///
    /// The number of segments is ignored: drivers have one address for a buffer.
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

    /// Takes bounce buffers out of `pool` first: of those that fit in its objects and lie where the
    /// device reaches them. Drivers may then share small buffers where no hypercall may be made.
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

    /// What the device can reach.
    pub const fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// How many buffers drivers have, allocated and bounced.
    pub fn live(&self) -> usize {
        live::count(self.live)
    }

    /// Allocates `size` bytes and remembers them by the two addresses that it returns.
    pub(super) fn alloc(
        &self,
        size: u64,
        constraints: &Constraints,
    ) -> Result<(DmaAddr, NonNull<u8>), AdapterError> {
        // The slot comes first: nothing is moved in vain.
        let claim = self.claim()?;
        let buffer = Memory::Buffer(self.allocator.alloc_coherent(size, constraints)?);
        let cpu = buffer.as_ptr();
        let key = claim.keep(Purpose::Allocated, cpu, buffer);
        Ok((key.dma(), cpu))
    }

    /// Frees what [`alloc`](Self::alloc) gave out at these addresses.
    pub(super) fn free(&self, dma: DmaAddr, cpu: NonNull<u8>) -> Result<(), AdapterError> {
        let memory = self.take(Purpose::Allocated, Key::new(cpu, dma));
        memory.map(drop).ok_or(AdapterError::NotLent { dma })
    }

    fn take(&self, purpose: Purpose, key: Key) -> Option<Memory<P>> {
        live::take(self.live, purpose, key, self.allocator.platform().p2m())
    }

    /// Where the device finds the bytes as they are; `None` where it can't be given them: they are
    /// not in the linear mapping, or two pages of them are not neighbours in the machine, or they
    /// lie where the device does not reach.
    pub fn translate(&self, bytes: NonNull<[u8]>, constraints: &Constraints) -> Option<DmaAddr> {
        let (memory, p2m) = (self.allocator.platform().memory(), self.allocator.platform().p2m());
        let address = |pointer: *mut u8| pointer.addr() as u64;
        let (base, len) = (address(memory.pointer(Pfn::new(0))), bytes.len() as u64);
        // Exposed: the device reads and writes there by this address, unseen by the compiler.
        let exposed = bytes.cast::<u8>().as_ptr().expose_provenance() as u64;
        let at = PseudoPhysAddr::new(exposed.checked_sub(base)?);
        let last = at.checked_add(len.checked_sub(1)?)?.frame();
        let start = p2m.gfn(at.frame())?;
        let mut pages = at.frame().number()..=last.number();
        let in_line = pages.all(|number| {
            let (pfn, page) = (Pfn::new(number), number - at.frame().number());
            // What the processor has there must be that frame, not something else that happens to
            // be mapped behind the guest's memory.
            // A slice can be said to be longer than the address space, so this must not overflow.
            address(memory.pointer(pfn)) == base.wrapping_add(number.wrapping_mul(PAGE))
                && p2m.gfn(pfn) == Some(start.add(page))
        });
        let dma = DmaAddr::of(start).checked_add(at.offset() as u64)?;
        (in_line && constraints.admits(dma.get(), len)).then_some(dma)
    }

    /// Makes a bounce buffer for `bytes` of the driver's, has it filled, and remembers it by the
    /// driver's own address and the device address that it returns.
    pub(super) fn bounce(
        &self,
        bytes: NonNull<[u8]>,
        constraints: &Constraints,
        fill: impl FnOnce(&mut Memory<P>),
    ) -> Result<(DmaAddr, NonNull<u8>), AdapterError> {
        let claim = self.claim()?;
        let len = bytes.len() as u64;
        let pool = self.bounce.filter(|pool| len <= pool.bytes());
        let object = pool.and_then(|pool| pool.bounce().ok());
        // Any type can be a pool, so what the object itself says of its length is what counts.
        let object = object.filter(|object| {
            len <= object.len() && constraints.admits(object.dma_addr().get(), len)
        });
        let mut memory = match object {
            Some(object) => Memory::Object(object),
            None => Memory::Buffer(self.allocator.alloc_coherent(len, constraints)?),
        };
        fill(&mut memory);
        let pointer = memory.as_ptr();
        let key = claim.keep(Purpose::Bounce, bytes.cast(), memory);
        Ok((key.dma(), pointer))
    }

    /// Takes the bounce buffer back that stands in for the driver's memory at `bytes`; `None` if
    /// there is none at this device address.
    pub(super) fn unbounce(&self, dma: DmaAddr, bytes: NonNull<u8>) -> Option<Memory<P>> {
        self.take(Purpose::Bounce, Key::new(bytes, dma))
    }

    fn claim(&self) -> Result<Claim<'static, P>, AdapterError> {
        Claim::any(self.live).ok_or(AdapterError::NoSlot { slots: self.live.len() })
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

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;
    use crate::dma::Moved;

    #[test]
    fn every_error_says_what_failed_and_whether_it_can_pass() {
        let dma = DmaAddr::new(0x5000);
        let moved = Moved { offset: 9, told: dma, found: None };
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
