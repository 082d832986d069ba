//! The lines of a trace.

use core::fmt;

use super::entry::{EndedSpan, TraceEntry, TraceRecord};
use super::{Filter, Phase, Span, Timescale};

/// A record as one line of text, as `docs/TRACING.md` describes it.
///
/// A line has at most 190 bytes, because Xen splits lines of a domain in its log after 200
/// (`DOMAIN_PBUF_SIZE` in `xen/common/domain.c`).
#[derive(Clone, Copy, Debug)]
pub struct TraceLine<'r> {
    /// The number of the vCPU that made the record.
    pub vcpu: u32,
    /// The record.
    pub record: &'r TraceRecord,
    /// The meaning of its ticks.
    pub time: &'r Timescale,
}

impl fmt::Display for TraceLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# trace v{} ", self.vcpu)?;
        match self.record {
            TraceRecord::Call(entry) => {
                let TraceEntry { sequence, start, duration, .. } = *entry;
                let phase = entry.phase.map_or("-", Phase::name);
                write!(f, "#{sequence} {} {phase} {entry}", self.period(start, duration))
            }
            TraceRecord::Frames(list) => write!(f, "#{} {list}", list.sequence),
            TraceRecord::BeginTest { name, start } => {
                write!(f, "{} begin test {name}", self.moment(*start))
            }
            TraceRecord::BeginOperation { operation, start } => {
                write!(f, "{} begin {operation}", self.moment(*start))
            }
            TraceRecord::End(EndedSpan { span, start, duration, calls }) => {
                write!(f, "{} ", self.period(*start, *duration))?;
                match span {
                    Span::Test(name) => write!(f, "end test {name} calls={calls}"),
                    Span::Operation(operation) => {
                        write!(f, "end {} calls={calls}", operation.name)
                    }
                    Span::Phase(phase) => write!(f, "phase {} calls={calls}", phase.name()),
                }
            }
        }
    }
}

impl TraceLine<'_> {
    fn moment(&self, ticks: u64) -> Moment {
        Moment(self.time.since_boot(ticks))
    }

    fn period(&self, start: u64, duration: u64) -> Period {
        Period(self.moment(start), self.time.duration(duration))
    }
}

/// Nanoseconds since Xen booted, in seconds.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A beginning and a length in nanoseconds.
struct Period(Moment, u64);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} +{}", self.0, self.1)
    }
}

/// The first line of a trace.
#[derive(Clone, Copy, Debug)]
pub struct TraceHeader {
    /// The number of vCPUs.
    pub vcpus: usize,
    /// The number of records that the ring of each vCPU holds.
    pub ring: usize,
    /// The hypercalls that are recorded.
    pub filter: Filter,
}

impl fmt::Display for TraceHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vcpus, ring, filter } = self;
        write!(f, "# trace version=1 vcpus={vcpus} ring={ring} calls={filter}")
    }
}
