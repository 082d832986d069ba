//! What the objects of a pool are, checked for contradictions before anything is allocated.

use super::geometry::Geometry;
use super::{PoolError, PoolErrorKind};
use crate::addr::{Order, PAGE_SIZE};
use crate::dma::Constraints;

const PAGE: u64 = PAGE_SIZE as u64;

/// Whether an object is zeroed before the caller gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zeroing {
    /// Every byte is zero.
    #[default]
    Zeroed,
    /// The caller writes every byte before anyone reads one. Until then, the object can hold what the
    /// pool's last user of it left.
    Whatever,
}

/// The alignment that objects of this size and above have unless the caller asks for another.
const CACHE_LINE: u64 = 64;

/// What the objects of a pool are. Made by [`PoolConfig::builder`].
///
/// ```
/// use xen_contig::dma::{PoolConfig, PoolErrorKind};
///
/// let config = PoolConfig::builder("descriptors", 48).align(16).limit(1000).build()?;
/// assert_eq!((config.size(), config.chunk()), (48, 4096));
///
/// let contradiction = PoolConfig::builder("descriptors", 48).limit(10).reserve(20).build();
/// let kind = PoolErrorKind::ReserveAboveLimit { reserve: 20, limit: 10 };
/// assert_eq!(contradiction.map_err(|error| error.kind()), Err(kind));
/// # Ok::<(), xen_contig::dma::PoolError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    name: &'static str,
    size: u64,
    align: u64,
    chunk: u64,
    limit: Option<u64>,
    reserve: u64,
    zeroing: Zeroing,
}

/// Collects what the objects of a pool are.
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder has no effect until `build` is called"]
pub struct PoolBuilder {
    name: &'static str,
    size: u64,
    align: Option<u64>,
    chunk: u64,
    limit: Option<u64>,
    reserve: u64,
    zeroing: Zeroing,
}

/// Where a pool's objects lie in its chunks, and what a chunk must meet: for one device.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkPlan {
    pub geometry: Geometry,
    pub constraints: Constraints,
}

impl PoolConfig {
    /// Starts from zeroed objects of `size` bytes at any address, without a limit or a reserve.
    ///
    /// `name` says in errors and statistics which pool is meant.
    pub fn builder(name: &'static str, size: u64) -> PoolBuilder {
        PoolBuilder {
            name,
            size,
            align: None,
            chunk: 0,
            limit: None,
            reserve: 0,
            zeroing: Zeroing::Zeroed,
        }
    }

    /// Returns the name of the pool.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the bytes of an object.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes of a chunk.
    pub const fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Returns the most objects that the pool may have, or `None` without a limit.
    pub const fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Returns the number of objects that are available after a refill.
    pub const fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Returns whether the pool zeroes each object that it hands out.
    pub const fn zeroing(&self) -> Zeroing {
        self.zeroing
    }

    /// Returns how a pool for a device with these limits cuts its chunks.
    ///
    /// # Errors
    /// The contradiction between the limits and the objects.
    pub(super) fn plan(&self, device: &Constraints) -> Result<ChunkPlan, PoolErrorKind> {
        let (size, boundary, chunk) = (self.size, device.boundary(), self.chunk);
        if let Some(boundary) = boundary.filter(|boundary| size > *boundary) {
            return Err(PoolErrorKind::CrossesBoundary { size, boundary });
        }
        if size > device.max_segment() {
            let max_segment = device.max_segment();
            return Err(PoolErrorKind::SegmentTooLong { size, max_segment });
        }
        // A chunk is one extent and may cross a boundary: the device sees objects alone, and the
        // geometry keeps them from crossing it.
        let constraints = device
            .to_builder()
            .align(Geometry::chunk_align(self.align, boundary, chunk))
            .boundary(1 << 63)
            .max_segment(u64::MAX)
            .max_segments(1)
            .build()
            .map_err(PoolErrorKind::Constraints)?;
        Ok(ChunkPlan { geometry: Geometry::new(size, self.align, boundary, chunk), constraints })
    }
}

impl PoolBuilder {
    /// Sets the alignment of each object: a power of two of at most 1 GiB.
    ///
    /// It may be larger than the object or a page. Without this call it is the smallest power of
    /// two that is not below the size, and at most a cache line (64). The device's alignment for
    /// coherent buffers does not apply to objects.
    pub const fn align(self, align: u64) -> Self {
        Self { align: Some(align), ..self }
    }

    /// Sets the least number of bytes that the allocator is asked for at a time.
    ///
    /// It is rounded up to whole pages and to the size of an object. Without this call a chunk has
    /// as many pages as one object needs.
    pub const fn chunk(self, bytes: u64) -> Self {
        Self { chunk: bytes, ..self }
    }

    /// Sets the most objects that the pool may have. Without this call there is no limit.
    pub const fn limit(self, objects: u64) -> Self {
        Self { limit: Some(objects), ..self }
    }

    /// Sets how many objects are available when the pool is made and after each refill.
    pub const fn reserve(self, objects: u64) -> Self {
        Self { reserve: objects, ..self }
    }

    /// Sets whether the pool zeroes each object that it hands out.
    ///
    /// Without zeroing, an object holds what its previous user or the device wrote there.
    pub const fn zeroing(self, zeroing: Zeroing) -> Self {
        Self { zeroing, ..self }
    }

    /// Returns the configuration, unless its parts contradict each other.
    ///
    /// # Errors
    /// The contradiction, with its values.
    pub fn build(self) -> Result<PoolConfig, PoolError> {
        self.check().map_err(|kind| PoolError::new(self.name, kind))
    }

    fn check(self) -> Result<PoolConfig, PoolErrorKind> {
        let (size, max) = (self.size, Order::MAX.bytes());
        if size == 0 {
            return Err(PoolErrorKind::ZeroSize);
        }
        if let Some(size) = [size, self.chunk].into_iter().find(|bytes| *bytes > max) {
            return Err(PoolErrorKind::TooLarge { size, max });
        }
        let align = self.align.unwrap_or(size.next_power_of_two().min(CACHE_LINE));
        if !align.is_power_of_two() || align > max {
            return Err(PoolErrorKind::Alignment { align, max });
        }
        if let Some(limit) = self.limit.filter(|limit| self.reserve > *limit) {
            return Err(PoolErrorKind::ReserveAboveLimit { reserve: self.reserve, limit });
        }
        Ok(PoolConfig {
            name: self.name,
            size,
            align,
            chunk: self.chunk.max(size).next_multiple_of(PAGE),
            limit: self.limit,
            reserve: self.reserve,
            zeroing: self.zeroing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::{ConstraintError, ConstraintsBuilder};

    fn new(size: u64) -> PoolBuilder {
        PoolConfig::builder("tested", size)
    }

    fn device(build: fn(ConstraintsBuilder) -> ConstraintsBuilder) -> Constraints {
        build(Constraints::builder()).build().unwrap()
    }

    #[test]
    fn contradictions_are_named() {
        type Kind = PoolErrorKind;
        let max = 1 << 30;
        let above = Kind::ReserveAboveLimit { reserve: 9, limit: 8 };
        for (builder, kind) in [
            (new(0), Kind::ZeroSize),
            (new(max + 1), Kind::TooLarge { size: max + 1, max }),
            (new(u64::MAX), Kind::TooLarge { size: u64::MAX, max }),
            (new(1).chunk(max + 1), Kind::TooLarge { size: max + 1, max }),
            (new(1).align(0), Kind::Alignment { align: 0, max }),
            (new(1).align(24), Kind::Alignment { align: 24, max }),
            (new(1).align(1 << 63), Kind::Alignment { align: 1 << 63, max }),
            (new(8).limit(8).reserve(9), above),
        ] {
            assert_eq!(builder.build(), Err(PoolError::new("tested", kind)), "{builder:?}");
        }
    }

    #[test]
    fn contradictions_to_the_device_are_named() {
        type Kind = PoolErrorKind;
        let high = ConstraintError::AlignmentAboveMask { align: 1 << 16, mask: 0xffff };
        for (builder, device, kind) in [
            (
                new(65),
                device(|it| it.boundary(64)),
                Kind::CrossesBoundary { size: 65, boundary: 64 },
            ),
            (
                new(65),
                device(|it| it.max_segment(64)),
                Kind::SegmentTooLong { size: 65, max_segment: 64 },
            ),
            (new(8).align(1 << 16), device(|it| it.mask(0xffff)), Kind::Constraints(high)),
        ] {
            let plan = builder.build().unwrap().plan(&device);
            assert_eq!(plan.map(|_| ()), Err(kind), "{builder:?}");
        }
    }

    #[test]
    fn limits_that_are_just_met_are_no_contradiction() {
        let max = 1 << 30;
        for builder in
            [new(max), new(1).chunk(max).align(max), new(1).align(max), new(8).limit(8).reserve(8)]
        {
            assert!(builder.build().is_ok(), "{builder:?}: {:?}", builder.build());
        }
        for device in [device(|it| it.boundary(64)), device(|it| it.max_segment(64))] {
            let plan = new(64).build().unwrap().plan(&device);
            assert!(plan.is_ok(), "{device:?}: {plan:?}");
        }
    }

    #[test]
    fn a_chunk_has_whole_pages_and_room_for_an_object() {
        for (size, chunk, bytes) in [
            (1, 0, 4096),
            (4096, 0, 4096),
            (4097, 0, 8192),
            (64, 4097, 8192),
            (64, 1 << 16, 1 << 16),
            (5000, 4096, 8192),
        ] {
            assert_eq!(new(size).chunk(chunk).build().unwrap().chunk(), bytes, "{size} {chunk}");
        }
    }

    #[test]
    fn objects_are_aligned_to_themselves_or_a_cache_line_or_as_the_caller_asks() {
        let per_chunk = |builder: PoolBuilder, device: &Constraints| {
            builder.build().unwrap().plan(device).unwrap().geometry.objects()
        };
        let any = Constraints::default();
        let sizes = [1, 3, 12, 64, 100];
        assert_eq!(sizes.map(|size| per_chunk(new(size), &any)), [4096, 1024, 256, 64, 32]);
        assert_eq!(per_chunk(new(3).align(1), &any), 1365);
        assert_eq!(per_chunk(new(100).align(512), &any), 8);
        // The alignment of coherent buffers is another setting.
        assert_eq!(per_chunk(new(64), &device(|it| it.align(4096))), 64);
    }
}
