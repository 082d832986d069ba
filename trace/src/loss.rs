//! What a trace does not have, or the log has lost.

use std::fmt;

/// A place at which something is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The line of the log, counted from 1.
    pub line: usize,
    /// The vCPU, if one vCPU is concerned.
    pub vcpu: Option<u32>,
    /// The time of the last record before the loss, in ns since Xen booted.
    pub time: Option<u64>,
    /// What is missing, and why.
    pub kind: LossKind,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossKind {
    /// The vCPU's ring was full before it was printed.
    Overwritten {
        /// The number of records that the kernel says are lost: calls, begins, ends and phases.
        records: u64,
        /// The number of calls among them, if the numbers around the loss say so.
        calls: Option<u64>,
    },
    /// The numbers of the calls have a gap, and the kernel did not lose them: the log did.
    Missing {
        /// The number of calls in the gap.
        calls: u64,
    },
    /// The kernel printed only the first runs of a list of frames.
    FramesCut {
        /// The number of the call.
        call: u64,
        /// The number of frames that are not shown.
        frames: u64,
    },
    /// A line begins like the trace's and cannot be read.
    Unreadable {
        /// Which part of the line is wrong.
        reason: String,
    },
    /// Calls of a vCPU have the same time, so their tests, operations and order are not known.
    ClockStopped,
    /// Records came without a version line before them: the log begins inside of the trace.
    NoBeginning,
    /// The trace has a version that this library does not know; it is read as version 1.
    UnknownVersion {
        /// The version.
        version: u64,
    },
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overwritten { records: 1, .. } => {
                f.write_str("1 record was overwritten before it was printed")
            }
            Self::Missing { calls: 1 } => f.write_str("1 call is missing in the log"),
            Self::Overwritten { records, .. } => {
                write!(f, "{records} records were overwritten before they were printed")
            }
            Self::Missing { calls } => write!(f, "{calls} calls are missing in the log"),
            Self::FramesCut { call, frames } => {
                write!(f, "{frames} frames of call #{call} are not shown")
            }
            Self::Unreadable { reason } => f.write_str(reason),
            Self::ClockStopped => f.write_str("the clock of the guest stands still"),
            Self::NoBeginning => f.write_str("the trace has no version line"),
            Self::UnknownVersion { version } => {
                write!(f, "the trace has version {version}; this program reads version 1")
            }
        }
    }
}
