//! DMA objects of one size, cut from coherent buffers. [`Pool`] has the documentation.

mod bits;
mod chunked;
mod config;
mod error;
mod geometry;
mod object;
mod report;

pub use chunked::Pool;
pub use config::{PoolBuilder, PoolConfig, Zeroing};
pub use error::{PoolError, PoolErrorKind};
pub use object::PoolObject;
pub use report::{MovedChunk, PoolStatistics};
