//! Small DMA objects out of coherent buffers.
//!
//! * [`PoolConfig`]: size, alignment, boundary and number of the objects, checked for
//!   contradictions before anything moves;
//! * [`Pool`]: asks the allocator for more when it runs out;
//! * [`AtomicPool`]: never does. Sized at boot and refilled outside, for where nothing may sleep
//!   and no hypercall may be made, interrupt handlers among them;
//! * [`PoolObject`]: what both hand out. It gives itself back;
//! * [`PoolError`]: why not, with the evidence inside;
//! * [`MovedChunk`]: what lies elsewhere since the domain was saved and restored.
//!
//! # After save and restore, or migration
//! What a device was told is not so any more ([C75](crate::conformance#C75)). Once the P2M is up to
//! date again, a pool's `check_in_place` finds the chunks that moved and hands out nothing of them
//! from then on; a chunk that nobody checked is found out when an object of it would be handed out.
//! Whoever has an object asks [`PoolObject::check_in_place`], drops it and takes another. What
//! moved gives its place in the pool back when the pool is trimmed.
//!
//! Which objects are taken is written down in the pool, never in the DMA memory
//! ([M5](crate::rules#M5)): a device that writes where it should not can spoil the content of
//! objects, but not the books.

mod atomic;
mod chunks;
mod config;
mod error;
mod geometry;
mod growing;
mod moved;
mod object;
mod taken;

pub use atomic::AtomicPool;
pub use config::{PoolBuilder, PoolConfig};
pub use error::PoolError;
pub use growing::Pool;
pub use moved::MovedChunk;
pub use object::PoolObject;
