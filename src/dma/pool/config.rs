//! What the objects of a pool are to be, checked for contradictions before anything moves.

use super::PoolError;
use super::geometry::Geometry;
use super::taken::MAX_OBJECTS;
use crate::addr::{Order, PAGE_SIZE};
use crate::dma::Constraints;

const PAGE: u64 = PAGE_SIZE as u64;

/// What the objects of a pool are to be. Made by [`PoolConfig::builder`].
///
/// ```
/// use xen_contig::dma::{PoolConfig, PoolError};
///
/// let config = PoolConfig::builder(48).align(16).boundary(4096).limit(1000).build()?;
/// assert_eq!((config.size(), config.objects_per_chunk()), (48, 85));
///
/// let crossing = PoolConfig::builder(48).boundary(32).build();
/// assert_eq!(crossing, Err(PoolError::CrossesBoundary { size: 48, boundary: 32 }));
/// # Ok::<(), PoolError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    geometry: Geometry,
    /// What is asked of the allocator for each chunk.
    constraints: Constraints,
    limit: Option<u64>,
    reserve: Option<u64>,
}

/// Collects what the objects are to be.
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder is nothing until it is built"]
pub struct PoolBuilder {
    size: u64,
    align: u64,
    boundary: Option<u64>,
    chunk: Option<u64>,
    limit: Option<u64>,
    reserve: Option<u64>,
    constraints: Constraints,
}

impl PoolConfig {
    /// Starts from objects of `size` bytes, anywhere.
    pub fn builder(size: u64) -> PoolBuilder {
        PoolBuilder {
            size,
            align: 1,
            boundary: None,
            chunk: None,
            limit: None,
            reserve: None,
            constraints: Constraints::default(),
        }
    }

    /// Bytes of an object.
    pub const fn size(&self) -> u64 {
        self.geometry.size()
    }

    /// Bytes of the buffers that objects are cut from.
    pub const fn chunk(&self) -> u64 {
        self.geometry.chunk()
    }

    /// Objects in a chunk.
    pub const fn objects_per_chunk(&self) -> u64 {
        self.geometry.objects()
    }

    pub(super) const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(super) const fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// The most objects of a pool of `chunks` chunks.
    pub(super) fn limit(&self, chunks: usize) -> Result<u64, PoolError> {
        let room = self.objects_per_chunk().saturating_mul(chunks as u64);
        match self.limit {
            Some(limit) if limit > room => Err(PoolError::LimitAboveRoom { limit, room }),
            limit => Ok(limit.unwrap_or(room)),
        }
    }

    /// How many objects a pool of at most `limit` has free after a refill.
    pub(super) fn reserve(&self, limit: u64) -> Result<u64, PoolError> {
        match self.reserve {
            Some(reserve) if reserve > limit => {
                Err(PoolError::ReserveAboveLimit { reserve, limit })
            }
            Some(reserve) => Ok(reserve),
            None => Ok(limit.min(self.objects_per_chunk())),
        }
    }
}

impl PoolBuilder {
    /// What each object's address is a multiple of: a power of two, larger than the size or a page
    /// if need be.
    pub const fn align(self, align: u64) -> Self {
        Self { align, ..self }
    }

    /// A power of two of which no object crosses a multiple.
    pub const fn boundary(self, boundary: u64) -> Self {
        Self { boundary: Some(boundary), ..self }
    }

    /// What the device can reach. Of alignment and boundary here and there, the stricter holds for
    /// each object; with [`Zeroing::Zeroed`](crate::dma::Zeroing::Zeroed) each object comes zeroed.
    pub const fn constraints(self, constraints: Constraints) -> Self {
        Self { constraints, ..self }
    }

    /// How many bytes the allocator is asked for at a time: whole pages. Without this, as many
    /// pages as one object needs.
    pub const fn chunk(self, bytes: u64) -> Self {
        Self { chunk: Some(bytes), ..self }
    }

    /// The most objects that there may be. Without this, as many as the pool's type has room for.
    pub const fn limit(self, objects: u64) -> Self {
        Self { limit: Some(objects), ..self }
    }

    /// How many objects an [`AtomicPool`](super::AtomicPool) has free when it is made and after
    /// each refill. Without this, a chunk's.
    pub const fn reserve(self, objects: u64) -> Self {
        Self { reserve: Some(objects), ..self }
    }

    /// The configuration, unless its parts contradict each other.
    ///
    /// # Errors
    /// The contradiction, by name and value.
    pub fn build(self) -> Result<PoolConfig, PoolError> {
        let (size, max, device) = (self.size, Order::MAX.bytes(), self.constraints);
        let chunk = self.chunk.unwrap_or_else(|| size.min(max).next_multiple_of(PAGE));
        if size == 0 {
            return Err(PoolError::ZeroSize);
        }
        if let Some(size) = [size, chunk].into_iter().find(|bytes| *bytes > max) {
            return Err(PoolError::TooLarge { size, max });
        }
        if !self.align.is_power_of_two() {
            return Err(PoolError::Alignment { align: self.align });
        }
        if let Some(boundary) = self.boundary.filter(|boundary| !boundary.is_power_of_two()) {
            return Err(PoolError::Boundary { boundary });
        }
        let align = self.align.max(device.align());
        let boundary = [self.boundary, device.boundary()].into_iter().flatten().min();
        if let Some(boundary) = boundary.filter(|boundary| size > *boundary) {
            return Err(PoolError::CrossesBoundary { size, boundary });
        }
        if size > device.max_segment() {
            let max_segment = device.max_segment();
            return Err(PoolError::SegmentTooLong { size, max_segment });
        }
        if chunk == 0 || !chunk.is_multiple_of(PAGE) {
            return Err(PoolError::Chunk { chunk });
        }
        if chunk < size {
            return Err(PoolError::ChunkTooSmall { chunk, size });
        }
        // Before the arithmetic below meets an alignment near the end of all addresses.
        device.to_builder().align(align).build()?;
        if align > max {
            return Err(PoolError::TooLarge { size: align, max });
        }
        let geometry = Geometry::new(size, align, boundary, chunk);
        let objects = geometry.objects();
        if objects > MAX_OBJECTS {
            return Err(PoolError::TooManyObjects { objects, max: MAX_OBJECTS });
        }
        match (self.reserve, self.limit) {
            (_, Some(0)) => return Err(PoolError::ZeroLimit),
            (Some(reserve), Some(limit)) if reserve > limit => {
                return Err(PoolError::ReserveAboveLimit { reserve, limit });
            }
            _ => {}
        }
        // A chunk is one extent whatever the device takes as a segment, and may cross any boundary:
        // the device sees objects alone, and those the geometry keeps.
        let constraints = device
            .to_builder()
            .align(geometry.chunk_align())
            .boundary(1 << 63)
            .max_segment(u64::MAX)
            .max_segments(1)
            .build()?;
        Ok(PoolConfig { geometry, constraints, limit: self.limit, reserve: self.reserve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::ConstraintError;

    #[test]
    fn contradictions_are_named() {
        type Error = PoolError;
        let new = PoolConfig::builder;
        let error = |builder: PoolBuilder| builder.build().unwrap_err();
        let max = 1 << 30;
        assert_eq!(error(new(0)), Error::ZeroSize);
        assert_eq!(error(new(max + 1)), Error::TooLarge { size: max + 1, max });
        assert_eq!(error(new(u64::MAX)), Error::TooLarge { size: u64::MAX, max });
        assert_eq!(error(new(1).chunk(max + 1)), Error::TooLarge { size: max + 1, max });
        assert_eq!(error(new(1).align(0)), Error::Alignment { align: 0 });
        assert_eq!(error(new(1).align(24)), Error::Alignment { align: 24 });
        assert_eq!(error(new(1).align(1 << 63)), Error::TooLarge { size: 1 << 63, max });
        assert_eq!(error(new(1).boundary(0)), Error::Boundary { boundary: 0 });
        assert_eq!(error(new(1).boundary(24)), Error::Boundary { boundary: 24 });
        let crosses = Error::CrossesBoundary { size: 65, boundary: 64 };
        assert_eq!(error(new(65).boundary(64)), crosses);
        let device = Constraints::builder().boundary(64).build().unwrap();
        assert_eq!(error(new(65).boundary(4096).constraints(device)), crosses);
        let device = Constraints::builder().max_segment(64).build().unwrap();
        let long = Error::SegmentTooLong { size: 65, max_segment: 64 };
        assert_eq!(error(new(65).constraints(device)), long);
        for chunk in [0, 1, 4097] {
            assert_eq!(error(new(1).chunk(chunk)), Error::Chunk { chunk });
        }
        let small = Error::ChunkTooSmall { chunk: 4096, size: 4097 };
        assert_eq!(error(new(4097).chunk(4096)), small);
        let many = Error::TooManyObjects { objects: 1024, max: 512 };
        assert_eq!(error(new(8).chunk(8192)), many);
        assert_eq!(error(new(8).limit(0)), Error::ZeroLimit);
        let reserve = Error::ReserveAboveLimit { reserve: 9, limit: 8 };
        assert_eq!(error(new(8).limit(8).reserve(9)), reserve);
        let device = Constraints::builder().mask(0xffff).build().unwrap();
        let high = ConstraintError::AlignmentAboveMask { align: 1 << 16, mask: 0xffff };
        assert_eq!(error(new(8).align(1 << 16).constraints(device)), Error::Constraints(high));
    }

    #[test]
    fn what_is_just_allowed_is_no_contradiction() {
        let new = PoolConfig::builder;
        let max = 1 << 30;
        let device =
            |builder: fn(crate::dma::ConstraintsBuilder) -> crate::dma::ConstraintsBuilder| {
                builder(Constraints::builder()).build().unwrap()
            };
        for builder in [
            new(max),
            new(1).chunk(max).align(max),
            new(1).align(max),
            new(64).boundary(64),
            new(64).constraints(device(|it| it.boundary(64))),
            new(64).constraints(device(|it| it.max_segment(64))),
            new(4096).chunk(4096),
            new(8).chunk(4096),
            new(8).limit(8).reserve(8),
        ] {
            assert!(builder.build().is_ok(), "{builder:?}: {:?}", builder.build());
        }
    }

    #[test]
    fn the_stricter_of_pool_and_device_holds() {
        let device = Constraints::builder().align(256).boundary(1 << 16).build().unwrap();
        let config = PoolConfig::builder(100).align(64).constraints(device).build().unwrap();
        assert_eq!((config.chunk(), config.objects_per_chunk()), (4096, 16));
        let config = PoolConfig::builder(100).align(512).constraints(device).build().unwrap();
        assert_eq!(config.objects_per_chunk(), 8);
    }

    #[test]
    fn limits_are_held_against_the_room_there_is() {
        let build = |builder: PoolBuilder| builder.build().unwrap();
        let whole = build(PoolConfig::builder(64));
        assert_eq!((whole.limit(4), whole.reserve(256)), (Ok(256), Ok(64)));
        let some = build(PoolConfig::builder(64).limit(100).reserve(70));
        assert_eq!((some.limit(4), some.reserve(100)), (Ok(100), Ok(70)));
        assert_eq!(some.limit(1), Err(PoolError::LimitAboveRoom { limit: 100, room: 64 }));
        let greedy = build(PoolConfig::builder(64).reserve(70));
        let error = PoolError::ReserveAboveLimit { reserve: 70, limit: 64 };
        assert_eq!(greedy.reserve(64), Err(error));
    }
}
