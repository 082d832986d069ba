//! Why there is no object, with the evidence inside.

use core::fmt;

use super::PoolConfigError;
use crate::dma::AllocError;

/// Every object is taken.
///
/// The figures were read one after the other; where others take and give back at the same time,
/// they need not be of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolExhausted {
    /// How many objects the pool can hand out.
    pub capacity: u64,
    /// How many of them are taken.
    pub in_use: u64,
    /// How many there are besides in chunks that moved (C75): the pool hands them out no more, but
    /// they take their place in it until it is trimmed.
    pub moved: u64,
    /// How many it may have. Above all these: a refill helps.
    pub limit: u64,
}

impl fmt::Display for PoolExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, in_use, moved, limit } = self;
        write!(f, "{in_use} of the pool's {capacity} objects are taken, and ")?;
        match capacity + moved < *limit {
            true => write!(f, "it may have {limit}: refill it where the caller can sleep"),
            false if *moved > 0 => {
                write!(f, "{moved} more have moved: drop what is taken of them, then trim the pool")
            }
            false => f.write_str("it may have no more: raise its limit"),
        }
    }
}

impl core::error::Error for PoolExhausted {}

/// Why there is no object, or no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// The configuration contradicts itself or the pool's type.
    Config(PoolConfigError),
    /// Every object is taken and there may be no more.
    Exhausted(PoolExhausted),
    /// There may be more, but the allocator has no memory for them.
    Alloc(AllocError),
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Exhausted(error) => error.fmt(f),
            Self::Alloc(error) => write!(f, "the pool can't grow: {error}"),
        }
    }
}

impl core::error::Error for PoolError {}

impl From<PoolConfigError> for PoolError {
    fn from(error: PoolConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<PoolExhausted> for PoolError {
    fn from(error: PoolExhausted) -> Self {
        Self::Exhausted(error)
    }
}

impl From<AllocError> for PoolError {
    fn from(error: AllocError) -> Self {
        Self::Alloc(error)
    }
}

/// A refill that did not come to its end. What it added before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefillError {
    /// Objects added.
    pub added: u64,
    /// Why no more.
    pub error: PoolError,
}

impl fmt::Display for RefillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects were added, then: {}", self.added, self.error)
    }
}

impl core::error::Error for RefillError {}
