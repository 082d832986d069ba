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
/// use xen_contig::dma::{Constraints, PoolConfig, PoolErrorKind};
///
/// let config = PoolConfig::builder("descriptors", 48).align(16).limit(1000).build()?;
/// assert_eq!((config.size(), config.objects_per_chunk()), (48, 85));
///
/// let device = Constraints::builder().boundary(32).build().expect("no contradiction");
/// let crossing = PoolConfig::builder("descriptors", 48).constraints(device).build();
/// let kind = PoolErrorKind::CrossesBoundary { size: 48, boundary: 32 };
/// assert_eq!(crossing.map_err(|error| error.kind()), Err(kind));
/// # Ok::<(), xen_contig::dma::PoolError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    name: &'static str,
    geometry: Geometry,
    /// The constraints of a chunk.
    constraints: Constraints,
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
    constraints: Constraints,
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
            constraints: Constraints::default(),
        }
    }

    /// Returns the name of the pool.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the bytes of an object.
    pub const fn size(&self) -> u64 {
        self.geometry.size()
    }

    /// Returns the bytes of a chunk.
    pub const fn chunk(&self) -> u64 {
        self.geometry.chunk()
    }

    /// Returns the number of objects in a chunk.
    pub const fn objects_per_chunk(&self) -> u64 {
        self.geometry.objects()
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

    pub(super) const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(super) const fn constraints(&self) -> &Constraints {
        &self.constraints
    }
}

impl PoolBuilder {
    /// Sets the alignment of each object: a power of two of at most 1 GiB.
    ///
    /// It may be larger than the object or a page. Without this call it is the smallest power of
    /// two that is not below the size, and at most a cache line (64).
    pub const fn align(self, align: u64) -> Self {
        Self { align: Some(align), ..self }
    }

    /// Sets what the device can reach.
    ///
    /// An object lies between the lowest address and the mask, and crosses no boundary. The
    /// alignment for coherent buffers does not apply to objects: see [`align`](Self::align).
    pub const fn constraints(self, constraints: Constraints) -> Self {
        Self { constraints, ..self }
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
        let (size, max, device) = (self.size, Order::MAX.bytes(), self.constraints);
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
        if let Some(boundary) = device.boundary().filter(|boundary| size > *boundary) {
            return Err(PoolErrorKind::CrossesBoundary { size, boundary });
        }
        if size > device.max_segment() {
            let max_segment = device.max_segment();
            return Err(PoolErrorKind::SegmentTooLong { size, max_segment });
        }
        if let Some(limit) = self.limit.filter(|limit| self.reserve > *limit) {
            return Err(PoolErrorKind::ReserveAboveLimit { reserve: self.reserve, limit });
        }
        let chunk = self.chunk.max(size).next_multiple_of(PAGE);
        // A chunk is one extent and may cross a boundary: the device sees objects alone, and the
        // geometry keeps them from crossing it.
        let constraints = device
            .to_builder()
            .align(Geometry::chunk_align(align, device.boundary(), chunk))
            .boundary(1 << 63)
            .max_segment(u64::MAX)
            .max_segments(1)
            .build()
            .map_err(PoolErrorKind::Constraints)?;
        Ok(PoolConfig {
            name: self.name,
            geometry: Geometry::new(size, align, device.boundary(), chunk),
            constraints,
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
        let crosses = Kind::CrossesBoundary { size: 65, boundary: 64 };
        let long = Kind::SegmentTooLong { size: 65, max_segment: 64 };
        let above = Kind::ReserveAboveLimit { reserve: 9, limit: 8 };
        let high = ConstraintError::AlignmentAboveMask { align: 1 << 16, mask: 0xffff };
        for (builder, kind) in [
            (new(0), Kind::ZeroSize),
            (new(max + 1), Kind::TooLarge { size: max + 1, max }),
            (new(u64::MAX), Kind::TooLarge { size: u64::MAX, max }),
            (new(1).chunk(max + 1), Kind::TooLarge { size: max + 1, max }),
            (new(1).align(0), Kind::Alignment { align: 0, max }),
            (new(1).align(24), Kind::Alignment { align: 24, max }),
            (new(1).align(1 << 63), Kind::Alignment { align: 1 << 63, max }),
            (new(65).constraints(device(|it| it.boundary(64))), crosses),
            (new(65).constraints(device(|it| it.max_segment(64))), long),
            (new(8).limit(8).reserve(9), above),
            (
                new(8).align(1 << 16).constraints(device(|it| it.mask(0xffff))),
                Kind::Constraints(high),
            ),
        ] {
            assert_eq!(builder.build(), Err(PoolError::new("tested", kind)), "{builder:?}");
        }
    }

    #[test]
    fn limits_that_are_just_met_are_no_contradiction() {
        let max = 1 << 30;
        for builder in [
            new(max),
            new(1).chunk(max).align(max),
            new(1).align(max),
            new(64).constraints(device(|it| it.boundary(64))),
            new(64).constraints(device(|it| it.max_segment(64))),
            new(8).limit(8).reserve(8),
        ] {
            assert!(builder.build().is_ok(), "{builder:?}: {:?}", builder.build());
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
        let per_chunk = |builder: PoolBuilder| builder.build().unwrap().objects_per_chunk();
        assert_eq!([1, 3, 12, 64, 100].map(|size| per_chunk(new(size))), [4096, 1024, 256, 64, 32]);
        assert_eq!(per_chunk(new(3).align(1)), 1365);
        assert_eq!(per_chunk(new(100).align(512)), 8);
        // The alignment of coherent buffers is another setting.
        let pages = device(|it| it.align(4096));
        assert_eq!(per_chunk(new(64).constraints(pages)), 64);
    }
}
