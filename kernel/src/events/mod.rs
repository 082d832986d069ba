//! Event channels: one port per vCPU, by which the others wake it.
//!
//! Only these ports are unmasked. The handler counts the event and returns. It does not lock,
//! allocate or print. Therefore an event may arrive while its vCPU holds a spin lock of the kernel
//! (console, heap, frames, trace).
//!
//! Events are masked in three places: in an upcall, in a recoverable fault, and where a vCPU checks
//! for work before it sleeps. Each vCPU records its longest period with events masked.
//!
//! | question | place |
//! |---|---|
//! | how are events masked, and how does a vCPU sleep? | `mask` |
//! | how does a vCPU wake another, and what does the handler do? | `channel` |

mod channel;
mod mask;

pub use channel::{
    arrived, bind, forget_masked, longest_masked, masked_since, notify, start, upcall,
};
pub use mask::{block, is_masked, mask, nap, unmask, wait_until};
