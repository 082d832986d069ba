//! Xenstore, as a client that writes keys.

mod store;

pub use store::{Store, StoreError};
