//! A guest: what is booted, what it said and how it ended, turned into a verdict.

mod expect;
mod ktap;
mod lines;
mod probe;
mod serial;
mod spec;
mod verdict;

pub use expect::Expect;
pub use ktap::{Ktap, TestCounts, TestOutcome, TestResult};
pub use lines::{LogLines, names_a_cut};
pub use probe::{PROBE, ProbeClaim, ProbeRequest};
pub use serial::{MachineEnd, SerialLog};
pub use spec::{Goal, Guest, PassFault, PassedDevice};
#[cfg(test)]
pub use verdict::judge;
pub use verdict::{End, GuestVerdict, Judgement, LISTED_TEST};
