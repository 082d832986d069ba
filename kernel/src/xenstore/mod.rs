//! Xenstore, as a client: reading, writing and listing keys.
//!
//! | question | place |
//! |---|---|
//! | how do bytes reach xenstored, and come back? | `ring` |
//! | which answer belongs to a request? | `stream` |
//! | what can be asked? | `store` |
//! | what can fail? | `error` |
//!
//! The client has no watches. A caller that waits for a change reads the key again.

mod error;
mod ring;
mod store;
mod stream;

pub use error::StoreError;
pub use store::Store;
