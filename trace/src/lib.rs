//! Reads the hypercall trace that a xen-contig guest prints.
//!
//! The input is any log that contains the trace: the output of `xl dmesg`, the log of a console or
//! of a serial line. Lines of others, prefixes, bytes that are not UTF-8 and lines that Xen split
//! are expected. What cannot be read becomes a [`Loss`] with the number of the line, never an error.
//!
//! ```
//! let log = b"\
//! (d1) # trace version=1 vcpus=1 ring=4096 calls=all
//! (d1) # trace v0 @8.000000000 begin test stale-alias
//! (d1) # trace v0 #0 @8.033075006 +41250 exchange memory_op exchange in=8 bits=64 -> -EINVAL done=0
//! (d1) # trace v0 #0 in 0x7d000+8
//! ";
//! let trace = xen_contig_trace::Trace::parse(log);
//! let boot = trace.boots.last().unwrap();
//! let call = &boot.calls[0];
//! assert_eq!((call.hypercall.as_str(), call.operation()), ("memory_op", Some("exchange")));
//! assert_eq!(call.result.errno(), Some("EINVAL"));
//! assert_eq!(boot.test_of(call).unwrap().name, "stale-alias");
//! assert!(trace.losses().next().is_none());
//! ```

#![forbid(unsafe_code)]

mod call;
mod join;
mod loss;
mod nesting;
mod reader;
mod record;
mod span;
mod trace;

pub use call::{Argument, CallResult, FailedEntry, FrameRun, FrameRuns, Phase, TracedCall};
pub use loss::{Loss, LossKind};
pub use reader::TraceReader;
pub use span::{SpanKind, TracedSpan};
pub use trace::{Ancestors, Boot, Trace};
