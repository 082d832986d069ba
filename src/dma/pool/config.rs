//! What the objects of a pool are to be, checked for contradictions before anything moves.

use core::fmt;

use super::geometry::Geometry;
use super::taken::MAX_OBJECTS;
use crate::addr::{Order, PAGE_SIZE};
use crate::dma::{ConstraintError, Constraints};

const PAGE: u64 = PAGE_SIZE as u64;

/// What the objects of a pool are to be. Made by [`PoolConfig::builder`].
///
/// ```
/// use xen_contig::dma::{PoolConfig, PoolConfigError};
///
/// let config = PoolConfig::builder(48).align(16).boundary(4096).limit(1000).build()?;
/// assert_eq!((config.size(), config.objects_per_chunk()), (48, 85));
///
/// let crossing = PoolConfig::builder(48).boundary(32).build();
/// assert_eq!(crossing, Err(PoolConfigError::CrossesBoundary { size: 48, boundary: 32 }));
/// # Ok::<(), PoolConfigError>(())
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

/// Wishes that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolConfigError {
    /// Objects of no bytes.
    ZeroSize,
    /// An object larger than any coherent buffer.
    TooLarge {
        /// Bytes of an object, or of a chunk.
        size: u64,
        /// Bytes that there can be.
        max: u64,
    },
    /// The alignment is no power of two.
    Alignment {
        /// The alignment.
        align: u64,
    },
    /// The boundary is no power of two.
    Boundary {
        /// The boundary.
        boundary: u64,
    },
    /// An object crosses the boundary wherever it lies.
    CrossesBoundary {
        /// Bytes of an object.
        size: u64,
        /// The boundary.
        boundary: u64,
    },
    /// The device takes no segment as long as an object.
    SegmentTooLong {
        /// Bytes of an object.
        size: u64,
        /// The most bytes in a segment.
        max_segment: u64,
    },
    /// A chunk that is not made of whole pages.
    Chunk {
        /// Bytes of a chunk.
        chunk: u64,
    },
    /// A chunk that has no room for one object.
    ChunkTooSmall {
        /// Bytes of a chunk.
        chunk: u64,
        /// Bytes of an object.
        size: u64,
    },
    /// More objects in a chunk than a pool keeps books of.
    TooManyObjects {
        /// Objects in a chunk.
        objects: u64,
        /// The most that there can be.
        max: u64,
    },
    /// A pool of no objects.
    ZeroLimit,
    /// More objects than the pool's type has room for.
    LimitAboveRoom {
        /// Objects wanted.
        limit: u64,
        /// Objects in as many chunks as the pool can have.
        room: u64,
    },
    /// More objects in reserve than there may be at all.
    ReserveAboveLimit {
        /// Objects in reserve.
        reserve: u64,
        /// The most objects.
        limit: u64,
    },
    /// Nothing that the device reaches has the alignment of a chunk, for one.
    Constraints(ConstraintError),
}

impl fmt::Display for PoolConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ZeroSize => f.write_str("an object must have at least one byte"),
            Self::TooLarge { size, max } => write!(f, "{size} bytes are more than {max}"),
            Self::Alignment { align } => write!(f, "alignment {align:#x} is no power of two"),
            Self::Boundary { boundary } => write!(f, "boundary {boundary:#x} is no power of two"),
            Self::CrossesBoundary { size, boundary } => {
                write!(f, "{size} bytes cross a multiple of {boundary:#x} wherever they lie")
            }
            Self::SegmentTooLong { size, max_segment } => {
                write!(f, "objects of {size} bytes are more than one segment of {max_segment}")
            }
            Self::Chunk { chunk } => {
                write!(f, "chunks of {chunk} bytes are no multiple of the page size")
            }
            Self::ChunkTooSmall { chunk, size } => {
                write!(f, "chunks of {chunk} bytes have no room for an object of {size}")
            }
            Self::TooManyObjects { objects, max } => {
                write!(f, "{objects} objects in a chunk are more than {max}: take smaller chunks")
            }
            Self::ZeroLimit => f.write_str("a pool must be allowed at least one object"),
            Self::LimitAboveRoom { limit, room } => write!(
                f,
                "the pool has room for {room} objects, {limit} are wanted: give its type more \
                 chunks, or take larger ones"
            ),
            Self::ReserveAboveLimit { reserve, limit } => {
                write!(f, "{reserve} objects in reserve are more than the limit of {limit}")
            }
            Self::Constraints(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PoolConfigError {}

impl From<ConstraintError> for PoolConfigError {
    fn from(error: ConstraintError) -> Self {
        Self::Constraints(error)
    }
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
    pub(super) fn limit(&self, chunks: usize) -> Result<u64, PoolConfigError> {
        let room = self.objects_per_chunk().saturating_mul(chunks as u64);
        match self.limit {
            Some(limit) if limit > room => Err(PoolConfigError::LimitAboveRoom { limit, room }),
            limit => Ok(limit.unwrap_or(room)),
        }
    }

    /// How many objects a pool of at most `limit` has free after a refill.
    pub(super) fn reserve(&self, limit: u64) -> Result<u64, PoolConfigError> {
        match self.reserve {
            Some(reserve) if reserve > limit => {
                Err(PoolConfigError::ReserveAboveLimit { reserve, limit })
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
    pub fn build(self) -> Result<PoolConfig, PoolConfigError> {
        let (size, max, device) = (self.size, Order::MAX.bytes(), self.constraints);
        let chunk = self.chunk.unwrap_or_else(|| size.min(max).next_multiple_of(PAGE));
        if size == 0 {
            return Err(PoolConfigError::ZeroSize);
        }
        if let Some(size) = [size, chunk].into_iter().find(|bytes| *bytes > max) {
            return Err(PoolConfigError::TooLarge { size, max });
        }
        if !self.align.is_power_of_two() {
            return Err(PoolConfigError::Alignment { align: self.align });
        }
        if let Some(boundary) = self.boundary.filter(|boundary| !boundary.is_power_of_two()) {
            return Err(PoolConfigError::Boundary { boundary });
        }
        let align = self.align.max(device.align());
        let boundary = [self.boundary, device.boundary()].into_iter().flatten().min();
        if let Some(boundary) = boundary.filter(|boundary| size > *boundary) {
            return Err(PoolConfigError::CrossesBoundary { size, boundary });
        }
        if size > device.max_segment() {
            let max_segment = device.max_segment();
            return Err(PoolConfigError::SegmentTooLong { size, max_segment });
        }
        if chunk == 0 || !chunk.is_multiple_of(PAGE) {
            return Err(PoolConfigError::Chunk { chunk });
        }
        if chunk < size {
            return Err(PoolConfigError::ChunkTooSmall { chunk, size });
        }
        // Before the arithmetic below meets an alignment near the end of all addresses.
        device.to_builder().align(align).build()?;
        if align > max {
            return Err(PoolConfigError::TooLarge { size: align, max });
        }
        let geometry = Geometry::new(size, align, boundary, chunk);
        let objects = geometry.objects();
        if objects > MAX_OBJECTS {
            return Err(PoolConfigError::TooManyObjects { objects, max: MAX_OBJECTS });
        }
        match (self.reserve, self.limit) {
            (_, Some(0)) => return Err(PoolConfigError::ZeroLimit),
            (Some(reserve), Some(limit)) if reserve > limit => {
                return Err(PoolConfigError::ReserveAboveLimit { reserve, limit });
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

    #[test]
    fn contradictions_are_named() {
        type Error = PoolConfigError;
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
        assert_eq!(some.limit(1), Err(PoolConfigError::LimitAboveRoom { limit: 100, room: 64 }));
        let greedy = build(PoolConfig::builder(64).reserve(70));
        let error = PoolConfigError::ReserveAboveLimit { reserve: 70, limit: 64 };
        assert_eq!(greedy.reserve(64), Err(error));
    }
}
