//! What a pool reports about itself.

use core::fmt;

use crate::dma::Moved;

/// How many objects and frames a pool has.
///
/// The figures are read one after the other. While other vCPUs allocate and drop objects, they need
/// not belong to one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// The name of the pool.
    pub pool: &'static str,
    /// Bytes of an object.
    pub object_size: u64,
    /// Objects in all chunks.
    pub objects: u64,
    /// Objects in use: handed out and not dropped. An object that was forgotten stays in use.
    pub in_use: u64,
    /// Objects that [`alloc_atomic`](super::Pool::alloc_atomic) can hand out.
    pub available: u64,
    /// Objects in chunks that moved ([C75](crate::conformance#C75)), in use or not. The pool does
    /// not hand them out.
    pub moved: u64,
    /// The most objects that the pool may have, or `None` without a limit.
    pub limit: Option<u64>,
    /// Chunks that the pool allocated.
    pub chunks: u64,
    /// Frames of the chunks.
    pub chunk_frames: u64,
    /// Frames of the kernel that the pool keeps its records in.
    pub record_frames: u64,
}

impl fmt::Display for PoolStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, object_size, objects, in_use, chunk_frames, record_frames, .. } = self;
        write!(f, "pool {pool}: {in_use} of {objects} objects of {object_size} bytes in use")?;
        if self.moved > 0 {
            write!(f, ", {} in chunks that moved", self.moved)?;
        }
        match self.limit {
            Some(limit) => write!(f, ", limit {limit}")?,
            None => f.write_str(", no limit")?,
        }
        write!(f, ", {chunk_frames} frames and {record_frames} for records")
    }
}

/// A chunk of a pool that other machine frames back since a restore or a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedChunk {
    /// Objects of the chunk.
    pub objects: u64,
    /// Objects of the chunk that are in use.
    pub in_use: u64,
    /// The first byte of the chunk that is not at the address that the device received.
    pub moved: Moved,
}

impl fmt::Display for MovedChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { objects, in_use, moved } = self;
        write!(f, "a chunk with {in_use} of {objects} objects in use: {moved}")
    }
}
