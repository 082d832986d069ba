//! What the save and restore, or the migration, of the domain does to a pool
//! ([C75](crate::conformance#C75)).

use core::fmt;

use super::PoolError;
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

impl PoolError {
    /// [`PoolError::Moved`] if there is at least one chunk that moved.
    pub(super) fn of_moved(chunks: impl IntoIterator<Item = MovedChunk>) -> Result<(), Self> {
        let mut chunks = chunks.into_iter();
        let Some(first) = chunks.next() else { return Ok(()) };
        let add = |(chunks, taken), next: MovedChunk| (chunks + 1, taken + next.taken);
        let (chunks, taken) = chunks.fold((1, first.taken), add);
        Err(Self::Moved { chunks, taken, first })
    }
}
