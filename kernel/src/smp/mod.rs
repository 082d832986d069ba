//! Several vCPUs: starting them, and giving them work.
//!
//! | question | place |
//! |---|---|
//! | how are the other vCPUs started? | `start` |
//! | where do their stacks and data lie? | `memory` |
//! | how does a vCPU get work, and what does it do without? | `work` |

mod memory;
mod start;
mod work;

pub use start::{configured, start};
pub use work::{WorkError, everywhere, run_on};
