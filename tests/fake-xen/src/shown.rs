//! The trace that tests of a row of `docs/CONFORMANCE.md` print, for `make conformance`.

use std::thread;

use hypercall::trace::{CallRecord, Timescale, TraceEntry, TraceLine, TraceRecord};
use hypercall::{Call, XenErrno};

thread_local! {
    /// Whether this thread runs a test that is named after a row, such as `c24_…`.
    static OF_ROW: bool = thread::current().name().is_some_and(is_of_row);
}

/// Returns the call, before it is made, if its answer is to be printed.
pub fn describe(call: &Call<'_>) -> Option<CallRecord> {
    let has_answer = matches!(call, Call::Memory(_) | Call::Hvm(_));
    (has_answer && OF_ROW.with(|of_row| *of_row)).then(|| CallRecord::of(call))
}

/// Prints a call that has returned, as the kernel's `trace=full` does. The test harness captures
/// the line.
pub fn print(record: CallRecord, call: &Call<'_>, result: Result<u64, XenErrno>) {
    let entry = TraceEntry {
        sequence: 0,
        start: 0,
        duration: 0,
        times: 1,
        phase: None,
        call: record,
        result,
        done: call.done(),
        failed: None,
    };
    let (record, time) = (&TraceRecord::Call(entry), &Timescale::NANOSECONDS);
    println!("{}", TraceLine { vcpu: 0, record, time });
}

fn is_of_row(test: &str) -> bool {
    let name = test.rsplit("::").next().unwrap_or(test).as_bytes();
    matches!(name, [b'c', a, b, b'_', ..] if a.is_ascii_digit() && b.is_ascii_digit())
}
