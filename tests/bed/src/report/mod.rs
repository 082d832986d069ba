//! What the bed prints while it works, and what it says at the end.
//!
//! | question | place |
//! |---|---|
//! | what does a part of a suite report to? | `reporter` |
//! | what is going on, and for how long? | `progress` |
//! | how are the lines of parts that run side by side kept apart? | `output` |
//! | how is a line kept from steering the terminal? | `plain` |
//! | which checks were made, and how do they end? | `findings` |
//! | what came of one guest? | `outcome` |
//! | which files have the results for other programs? | `results` |

mod findings;
mod outcome;
mod output;
mod plain;
mod progress;
mod reporter;
pub mod results;

#[cfg(test)]
pub use findings::Findings;
pub use outcome::GuestOutcome;
#[cfg(test)]
pub use outcome::tests;
pub use output::Output;
pub use plain::plain;
pub use reporter::Reporter;
