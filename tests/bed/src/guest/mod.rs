//! What a guest said and how it ended, turned into a verdict. Pure: text in, judgement out.

mod ktap;
mod lines;
mod serial;
mod verdict;

pub use ktap::{Ktap, TestCounts};
pub use lines::LogLines;
pub use serial::{MachineEnd, SerialLog};
pub use verdict::{End, GuestVerdict, Judgement, judge};
