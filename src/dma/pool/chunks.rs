//! The buffers that objects are cut from.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::{array, fmt};

use super::taken::Taken;
use super::{MovedChunk, PoolConfig, PoolError, PoolObject};
use crate::addr::{DmaAddr, PseudoPhysAddr};
use crate::dma::moved::Told;
use crate::dma::{Allocator, CoherentBuffer, Zeroing};
use crate::platform::Platform;
use crate::sync::{AtomicBool, AtomicUsize, Once};

/// Up to `CHUNKS` chunks, filled one after the other and given up together.
///
/// Nothing here is ever locked. A chunk is filled by whoever sets its `claimed`, is published when
/// it is complete, and stays until the pool is borrowed mutably, when no object can be alive.
pub struct Chunks<'a, P: Platform, const CHUNKS: usize> {
    allocator: &'a Allocator<P>,
    config: PoolConfig,
    limit: u64,
    places: [Place<'a, P>; CHUNKS],
    /// Where an object was found last.
    hint: AtomicUsize,
}

/// Where a chunk is or will be.
struct Place<'a, P: Platform> {
    claimed: AtomicBool,
    chunk: Once<Chunk<'a, P>>,
}

struct Chunk<'a, P: Platform> {
    /// `None` only while it is dropped.
    buffer: Option<CoherentBuffer<'a, P>>,
    first: PseudoPhysAddr,
    dma: DmaAddr,
    taken: Taken,
    /// Whether it was found to be elsewhere than the device was told. Then it serves no more.
    moved: AtomicBool,
}

impl<P: Platform> Place<'_, P> {
    fn new() -> Self {
        Self { claimed: AtomicBool::new(false), chunk: Once::new() }
    }
}

impl<'a, P: Platform> Chunk<'a, P> {
    fn new(buffer: CoherentBuffer<'a, P>, objects: u64) -> Self {
        let (first, dma) = (PseudoPhysAddr::of(buffer.frames().first()), buffer.dma_addr());
        let (taken, moved) = (Taken::new(objects), AtomicBool::new(false));
        Self { buffer: Some(buffer), first, dma, taken, moved }
    }

    /// Where the device was told that `len` bytes at `offset` are.
    fn told(&self, offset: u64, len: u64) -> Told {
        let addresses = (self.first.checked_add(offset), self.dma.checked_add(offset));
        let (Some(at), Some(dma)) = addresses else {
            unreachable!("an object lies within its chunk, and that within the address space");
        };
        Told { at, dma, len }
    }

    fn serves(&self) -> bool {
        !self.moved.load(Relaxed)
    }
}

impl<P: Platform> Drop for Chunk<'_, P> {
    fn drop(&mut self) {
        // No object is alive now, but one that was forgotten may still be a device's.
        if self.taken.in_use() > 0 {
            core::mem::forget(self.buffer.take());
        }
    }
}

impl<'a, P: Platform, const CHUNKS: usize> Chunks<'a, P, CHUNKS> {
    /// No chunks yet.
    pub fn new(allocator: &'a Allocator<P>, config: &PoolConfig) -> Result<Self, PoolError> {
        const { assert!(CHUNKS > 0, "a pool must have room for a chunk") };
        let limit = config.limit(CHUNKS)?;
        let places = array::from_fn(|_| Place::new());
        Ok(Self { allocator, config: *config, limit, places, hint: AtomicUsize::new(0) })
    }

    pub const fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// The most objects that there may be.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    fn filled(&self) -> impl Iterator<Item = &Chunk<'a, P>> {
        self.places.iter().filter_map(|place| place.chunk.get())
    }

    fn serving(&self) -> impl Iterator<Item = &Chunk<'a, P>> {
        self.filled().filter(|chunk| chunk.serves())
    }

    /// How many objects there are in chunks that serve.
    pub fn capacity(&self) -> u64 {
        self.serving().map(|chunk| chunk.taken.objects()).sum()
    }

    /// How many of them are taken.
    pub fn in_use(&self) -> u64 {
        self.serving().map(|chunk| chunk.taken.in_use()).sum()
    }

    /// How many objects there are, and how many of them are taken. A chunk that comes meanwhile
    /// counts in both or in neither, so there are never more taken than there are.
    pub fn usage(&self) -> (u64, u64) {
        self.serving().fold((0, 0), |(capacity, in_use), chunk| {
            (capacity + chunk.taken.objects(), in_use + chunk.taken.in_use())
        })
    }

    pub fn exhausted(&self) -> PoolError {
        let (capacity, in_use) = self.usage();
        let moved = self.filled().filter(|chunk| !chunk.serves());
        let moved = moved.map(|chunk| chunk.taken.objects()).sum();
        PoolError::Exhausted { capacity, in_use, moved, limit: self.limit }
    }

    /// The chunks that are not where the device was told, found anew.
    pub fn moved(&self) -> impl Iterator<Item = MovedChunk> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let chunk = place.chunk.get()?;
            let told = chunk.told(0, self.config.chunk());
            let moved = told.check_in_place(self.allocator.platform().p2m()).err()?;
            let (objects, taken) = (chunk.taken.objects(), chunk.taken.in_use());
            Some(MovedChunk { chunk: index, objects, taken, moved })
        })
    }

    /// Hands out nothing of them any more.
    pub fn check_in_place(&self) -> Result<(), PoolError> {
        PoolError::of_moved(self.moved().inspect(|moved| {
            if let Some(chunk) = self.places[moved.chunk].chunk.get() {
                chunk.moved.store(true, Relaxed);
            }
        }))
    }

    /// Takes an object out of the chunks that there are. Waits for nobody.
    pub fn take(&self) -> Option<PoolObject<'_, P>> {
        let hint = self.hint.load(Relaxed);
        for place in (hint..CHUNKS).chain(0..hint) {
            let chunk = self.places[place].chunk.get().filter(|chunk| chunk.serves());
            let Some(chunk) = chunk else { continue };
            let Some(index) = chunk.taken.take() else { continue };
            let geometry = self.config.geometry();
            let told = chunk.told(geometry.offset(index), geometry.size());
            let mut object = PoolObject::new(self.allocator, (&chunk.taken, index), told);
            if object.check_in_place().is_err() {
                // Nobody has checked the pool since the domain was restored. A device that is told
                // an address from before would write to memory of somebody else's.
                chunk.moved.store(true, Relaxed);
                continue;
            }
            self.hint.store(place, Relaxed);
            if self.config.constraints().zeroing() == Zeroing::Zeroed {
                object.zero();
            }
            return Some(object);
        }
        None
    }

    /// Asks the allocator for a chunk more. Answers how many objects that is.
    pub fn grow(&self) -> Result<u64, PoolError> {
        let (config, per_chunk) = (&self.config, self.config.objects_per_chunk());
        for (index, place) in (0..).zip(&self.places) {
            let objects = self.limit.saturating_sub(index * per_chunk).min(per_chunk);
            if objects == 0 {
                break;
            }
            if place.claimed.swap(true, Acquire) {
                continue;
            }
            return match self.allocator.alloc_coherent(config.chunk(), config.constraints()) {
                Ok(buffer) => {
                    // Nobody else fills a place that is claimed, so this does not wait.
                    place.chunk.call_once(|| Chunk::new(buffer, objects));
                    Ok(objects)
                }
                Err(error) => {
                    place.claimed.store(false, Release);
                    Err(error.into())
                }
            };
        }
        Err(self.exhausted())
    }

    /// Gives up every chunk that no object was left in. Answers how many objects that was.
    pub fn trim(&mut self) -> u64 {
        let mut given = 0;
        for place in &mut self.places {
            if let Some(chunk) = place.chunk.get().filter(|chunk| chunk.taken.in_use() == 0) {
                given += chunk.taken.objects();
                *place = Place::new();
            }
        }
        given
    }

    /// What a pool says of itself.
    pub fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, (capacity, in_use)) = (self.config.size(), self.usage());
        write!(f, "{name}({in_use} of {capacity} objects of {size} bytes, limit {})", self.limit)
    }
}
