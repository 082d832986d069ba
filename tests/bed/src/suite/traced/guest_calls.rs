//! The calls of a guest's own trace, as Xen would record them.

use trace::{Argument, LossKind, Trace, TracedCall};

use super::agreement::GuestCall;

/// Reads the trace that a guest printed on its console.
///
/// # Errors
/// The guest printed no whole trace of all its calls.
pub fn of(console: &[String]) -> Result<Vec<GuestCall>, String> {
    let trace = Trace::parse(console.join("\n").as_bytes());
    // Xen does not record which frames a call moves.
    let mut losses = trace.losses().filter(|loss| !matches!(loss.kind, LossKind::FramesCut { .. }));
    if let Some(loss) = losses.next() {
        return Err(format!("the guest's trace is not whole: {}", loss.kind));
    }
    let [boot] = &trace.boots[..] else {
        return Err(format!("the console has {} traces, but must have one", trace.boots.len()));
    };
    if !boot.traced.is_empty() {
        return Err(format!("the guest traced only {}", boot.traced.join(", ")));
    }
    let mut calls: Vec<_> = boot.calls.iter().collect();
    calls.sort_by_key(|call| call.number);
    Ok(calls.into_iter().flat_map(each).collect())
}

/// Returns a call for each of those that the kernel folded.
fn each(call: &TracedCall) -> impl Iterator<Item = GuestCall> {
    let times = usize::try_from(call.times).unwrap_or(usize::MAX);
    std::iter::repeat_n(guest_call(call), times)
}

fn guest_call(call: &TracedCall) -> GuestCall {
    let number = |name: &str| {
        let argument =
            call.arguments.iter().find(|argument| argument.name.as_deref() == Some(name));
        argument.and_then(Argument::number)
    };
    let hypercall = call.hypercall.as_str();
    let has_length = matches!(hypercall, "mmu_update" | "mmuext_op");
    let length = number("count").filter(|_| has_length);
    let preemptions = match hypercall {
        // Also several times within one entry. The record says which ones are preemptions.
        "mmu_update" | "mmuext_op" => u64::MAX,
        // An exchange takes or gives several extents for one of the other side.
        "memory_op" => match (number("in"), number("out"), number("extents")) {
            (Some(input), Some(output), _) => input.min(output).saturating_sub(1),
            (_, _, Some(extents)) => extents.saturating_sub(1),
            _ => 0,
        },
        "set_trap_table" => number("entries").unwrap_or(0),
        _ => 0,
    };
    GuestCall {
        line: format!("#{} {call}", call.number),
        name: hypercall.to_owned(),
        length: length.and_then(|length| length.try_into().ok()),
        preemptions,
        entries: if hypercall == "multicall" { entries(call) } else { Vec::new() },
    }
}

/// What a trace has in place of further entries of a multicall.
const CUT: &str = "…";

/// Returns the entries of a multicall: `mmu_update=8 mmuext_op=1:tlb_flush_all exchange in=8 …`.
fn entries(call: &TracedCall) -> Vec<(String, Option<u32>)> {
    let entry = |argument: &Argument| {
        let (name, value) = (argument.name.as_deref(), argument.value.as_str());
        match (name, value) {
            (Some("mmu_update" | "mmuext_op"), _) => {
                let length = value.split(':').next()?.parse().ok()?;
                Some((name?.to_owned(), Some(length)))
            }
            (None, "exchange") => Some(("memory_op".to_owned(), None)),
            (None, CUT) => None,
            (None, word) => Some((word.to_owned(), None)),
            _ => None,
        }
    };
    let mut entries: Vec<_> = call.arguments.iter().filter_map(entry).collect();
    // The kernel names the first few. Longer batches are of one kind.
    if let (Some(all), Some(last)) = (number(call, "entries"), entries.last().cloned()) {
        entries.resize(usize::try_from(all).unwrap_or(0).max(entries.len()), last);
    }
    entries
}

/// Returns the argument of that name, if it is a number.
fn number(call: &TracedCall, name: &str) -> Option<u64> {
    let argument = call.arguments.iter().find(|argument| argument.name.as_deref() == Some(name));
    argument.and_then(Argument::number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<GuestCall>, String> {
        let first = "# trace version=1 vcpus=1 ring=64 calls=all";
        let lines = std::iter::once(&first).chain(lines);
        of(&lines.map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn lengths_and_entries_are_those_that_xen_records() {
        let calls = read(&[
            "# trace v0 #0 @1.000000000 +10 - set_trap_table entries=19 -> 0",
            "# trace v0 #1 @1.100000000 +10 - update_va_mapping va=0x1 pte=0 flush=none -> 0 times=2",
            "# trace v0 #3 @1.200000000 +10 attach mmu_update count=8 entry=0x1..0x2 pte=0 -> 0 done=8",
            "# trace v0 #4 @1.300000000 +10 detach+exchange multicall entries=3 mmu_update=8 \
             mmuext_op=1:tlb_flush_all exchange in=8 in_order=0 out=1 out_order=3 bits=64 -> 0 done=3",
            "# trace v0 #5 @1.350000000 +10 - multicall entries=3 update_va_mapping … -> 0",
            "# trace v0 #6 @1.400000000 +10 - memory_op exchange in=1 in_order=9 out=512 out_order=0 \
             bits=64 -> 0 done=1",
            "# trace v0 #7 @1.500000000 +10 - memory_op decrease_reservation extents=4 order=0 bits=0 -> 4",
        ])
        .unwrap();
        let seen: Vec<_> =
            calls.iter().map(|call| (call.name.as_str(), call.length, call.preemptions)).collect();
        let map = ("update_va_mapping", None, 0);
        assert_eq!(
            seen,
            [
                ("set_trap_table", None, 19),
                map,
                map,
                ("mmu_update", Some(8), u64::MAX),
                ("multicall", None, 0),
                ("multicall", None, 0),
                ("memory_op", None, 0),
                ("memory_op", None, 3),
            ]
        );
        let entry = |name: &str, length| (name.to_owned(), length);
        assert_eq!(
            calls[4].entries,
            [entry("mmu_update", Some(8)), entry("mmuext_op", Some(1)), entry("memory_op", None)]
        );
        assert_eq!(calls[5].entries, vec![entry("update_va_mapping", None); 3]);
    }

    #[test]
    fn a_trace_with_a_gap_is_no_witness() {
        let lost = read(&[
            "# trace v0 #0 @1.000000000 +10 - xen_version version -> 4.17",
            "# trace v0 lost=3",
            "# trace v0 #3 @1.100000000 +10 - xen_version version -> 4.17",
        ]);
        assert!(lost.unwrap_err().contains("not whole"));
        assert!(of(&["KTAP version 1".to_owned()]).unwrap_err().contains("0 traces"));
    }
}
