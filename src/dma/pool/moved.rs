//! What the save and restore, or the migration, of the domain does to a pool (C75).

use core::fmt;

use crate::dma::Moved;

/// A chunk of a pool whose machine frames are not what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedChunk {
    /// Which, counted from 0 in the order in which a pool fills them.
    pub chunk: usize,
    /// Objects cut from it.
    pub objects: u64,
    /// How many of them are taken.
    pub taken: u64,
    /// The first byte of the chunk that the device would not find.
    pub moved: Moved,
}

impl fmt::Display for MovedChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunk, objects, taken, moved } = self;
        write!(f, "chunk {chunk}, of whose {objects} objects {taken} are taken: {moved}")
    }
}

/// A pool of which some moved. It hands out nothing of that any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolMoved {
    /// How many chunks.
    pub chunks: usize,
    /// How many of their objects are taken: those that a device may have been told of.
    pub taken: u64,
    /// The first of the chunks.
    pub first: MovedChunk,
}

impl fmt::Display for PoolMoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunks, taken, first } = self;
        write!(
            f,
            "{chunks} chunks of the pool have moved, {taken} of their objects are taken: drop \
             those, then trim the pool; the first is {first}"
        )
    }
}

impl core::error::Error for PoolMoved {}

impl PoolMoved {
    /// Sums up the chunks that moved.
    pub(super) fn sum(chunks: impl IntoIterator<Item = MovedChunk>) -> Result<(), Self> {
        let mut chunks = chunks.into_iter();
        let Some(first) = chunks.next() else { return Ok(()) };
        let add = |(chunks, taken), next: MovedChunk| (chunks + 1, taken + next.taken);
        let (chunks, taken) = chunks.fold((1, first.taken), add);
        Err(Self { chunks, taken, first })
    }
}
