//! The identity of each vCPU, and the data that belongs to it alone.
//!
//! | question | place |
//! |---|---|
//! | how are vCPUs named? | `id` |
//! | what belongs to one vCPU, and how does it find it? | `local` |
//! | where are its stacks? | `stack` |
//! | how does it receive work? | `mailbox` |
//! | which events has it seen and sent? | `events` |
//! | how does a panic stop the others? | `stop` |
//!
//! [`smp`](crate::smp) starts the other vCPUs and gives them work.

mod events;
mod id;
mod local;
mod mailbox;
mod stack;
mod stop;

pub use id::{MAX, VcpuId};
pub use local::{Local, boot, count, current, local, of, online, xen};
pub use mailbox::{Mailbox, VcpuJob};
pub use stack::{FAULT_STACK, Stack};
pub use stop::stop_others;
