//! Xenstore, as a client: reading, writing and listing keys.
//!
//! | question | place |
//! |---|---|
//! | how do bytes reach xenstored, and come back? | `ring` |
//! | what is a request, and what is its answer? | `store` |
//! | what can fail? | `error` |
//!
//! The client has no watches. A caller that waits for a change reads the key again.

mod error;
mod ring;
mod store;

pub use error::StoreError;
pub use store::Store;
