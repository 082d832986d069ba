//! Holds a guest's own trace against what Xen recorded of the same vCPU.
//!
//! The record must be the guest's calls in their order, with the same lengths of lists, and with
//! nothing besides but:
//!
//! * calls of the hypercalls that the kernel also makes without a trace ([`UNTRACED`]);
//! * the second and further beginnings of a call that Xen preempted. Xen ends such a call in the
//!   middle and has the guest make it again, so it is recorded again. In the counts of `mmu_update`
//!   and `mmuext_op`, a bit says so. A `multicall` is then one of the remaining entries. A
//!   `memory_op` shows nothing, but Xen preempts it between two extents only.
//!
//! Where a record could be either of two things, both are followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::recorded::{RecordedCall, name};

/// A call as the guest traced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestCall {
    /// The line of the trace.
    pub line: String,
    /// The hypercall.
    pub name: String,
    /// The length of its list, if Xen records it.
    pub length: Option<u32>,
    /// How often Xen can preempt it at most. It preempts a `memory_op` between extents, never before it has
    /// done one (`memory_exchange` and others in Xen's `common/memory.c`).
    pub preemptions: u64,
    /// The entries of a multicall, and the lengths of their lists.
    pub entries: Vec<(String, Option<u32>)>,
}

/// The calls that both have, by the name of the hypercall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// How often the guest made each call, as an entry of a multicall or not.
    pub calls: BTreeMap<String, u64>,
    /// How many records are of calls that Xen preempted.
    pub continued: u64,
    /// How many records are of calls that the kernel does not trace.
    pub untraced: u64,
}

/// In a count of `mmu_update` and `mmuext_op`: Xen preempted the call (`MMU_UPDATE_PREEMPTED`).
const PREEMPTED: u32 = 1 << 31;

/// The hypercalls that the kernel makes without a trace, too.
const UNTRACED: [&str; 6] = [
    // The console prints. A trace of that would never end.
    "console_io",
    // The console notifies its backend in dom0.
    "event_channel_op",
    // The console waits for the backend, and asks since when the vCPU has been running.
    "vcpu_op",
    // An idle vCPU sleeps; the console waits; the guest powers off.
    "sched_op",
    // The vCPU takes the events that came while they were masked. The answer does not matter.
    "xen_version",
    // The return from an exception or event. It does not return from Xen.
    "iret",
];

/// Returns true if the call may be one that the kernel does not trace.
fn is_untraced(call: &RecordedCall) -> bool {
    const GET_RUNSTATE_INFO: u32 = 4;
    let name = name(call.number);
    let is_other_vcpu_op = name == "vcpu_op" && call.args[0] != Some(GET_RUNSTATE_INFO);
    UNTRACED.contains(&name.as_str()) && !call.is_entry && !is_other_vcpu_op
}

/// Returns true if the record has the hypercall and the length. With `again`, Xen preempted the call
/// before; then the length is that of the rest.
fn is_of(call: &RecordedCall, wanted: &str, length: Option<u32>, again: bool) -> bool {
    let counts = length.is_some() && wanted != "multicall";
    let recorded = call.args[1];
    name(call.number) == wanted
        && match (counts, again) {
            (true, true) => recorded.is_some_and(|count| count & PREEMPTED != 0),
            (true, false) => recorded == length,
            (false, _) => true,
        }
}

/// A record under comparison.
struct Comparison<'a> {
    records: &'a [RecordedCall],
}

impl Comparison<'_> {
    /// Returns `at` and every place after it that only untraced calls lie before.
    fn places(&self, at: usize) -> impl Iterator<Item = usize> {
        let untraced = self.records[at..].iter().take_while(|call| is_untraced(call)).count();
        at..=at + untraced
    }

    fn is(&self, at: usize, is_entry: bool, test: impl Fn(&RecordedCall) -> bool) -> bool {
        self.records.get(at).is_some_and(|call| call.is_entry == is_entry && test(call))
    }

    /// Returns the places after the call, if it is recorded at `at`.
    fn after(&self, call: &GuestCall, at: usize) -> BTreeSet<usize> {
        match call.entries.is_empty() {
            true => self.after_plain(call, at),
            false => self.after_multicall(call, at),
        }
    }

    fn after_plain(&self, call: &GuestCall, at: usize) -> BTreeSet<usize> {
        let mut ends = BTreeSet::new();
        let mut begins = BTreeSet::from([at]);
        let mut again = 0;
        while !begins.is_empty() && again <= call.preemptions {
            let wanted = |record: &RecordedCall| is_of(record, &call.name, call.length, again > 0);
            let new: Vec<usize> =
                begins.iter().filter(|at| self.is(**at, false, wanted)).map(|at| at + 1).collect();
            begins = new.iter().flat_map(|end| self.places(*end)).collect();
            ends.extend(new);
            again += 1;
        }
        ends
    }

    /// Xen preempts a multicall before an entry that is not the first, or within an entry. Then the guest
    /// makes a multicall of the remaining entries.
    fn after_multicall(&self, call: &GuestCall, at: usize) -> BTreeSet<usize> {
        let mut ends = BTreeSet::new();
        // Where a multicall of the entries from this one on may begin.
        let mut begins = vec![(at, 0)];
        while let Some((at, first)) = begins.pop() {
            let remaining = (call.entries.len() - first) as u32;
            let is_multicall = |record: &RecordedCall| {
                name(record.number) == "multicall" && record.args[1] == Some(remaining)
            };
            if !self.is(at, false, is_multicall) {
                continue;
            }
            let mut end = at + 1;
            for (index, (name, length)) in call.entries.iter().enumerate().skip(first) {
                if index > first {
                    begins.extend(self.places(end).map(|place| (place, index)));
                }
                let fresh = |record: &RecordedCall| is_of(record, name, *length, false);
                let again = |record: &RecordedCall| is_of(record, name, *length, true);
                if !self.is(end, true, |record| fresh(record) || index == first && again(record)) {
                    break;
                }
                end += 1;
                begins.extend(self.places(end).map(|place| (place, index)));
                if index + 1 == call.entries.len() {
                    ends.insert(end);
                }
            }
        }
        ends
    }
}

/// Holds the guest's calls against the record of the same vCPU.
///
/// # Errors
/// Says where the two part.
pub fn of(calls: &[GuestCall], records: &[RecordedCall]) -> Result<Agreement, Difference> {
    let comparison = Comparison { records };
    let mut places: BTreeSet<usize> = comparison.places(0).collect();
    for call in calls {
        let ends: BTreeSet<usize> =
            places.iter().flat_map(|at| comparison.after(call, *at)).collect();
        if ends.is_empty() {
            return Err(Difference::new(Some(call), &places, records));
        }
        places = ends.iter().flat_map(|end| comparison.places(*end)).collect();
    }
    if !places.contains(&records.len()) {
        return Err(Difference::new(None, &places, records));
    }
    Ok(agreement(calls, records))
}

/// Counts the calls, once it is known that the record has them all.
fn agreement(calls: &[GuestCall], records: &[RecordedCall]) -> Agreement {
    let traced = counts(calls);
    let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        *recorded.entry(name(record.number)).or_default() += 1;
    }
    let (mut continued, mut untraced) = (0, 0);
    for (name, count) in recorded {
        let more = count - traced.get(&name).copied().unwrap_or(0);
        *(if UNTRACED.contains(&name.as_str()) { &mut untraced } else { &mut continued }) += more;
    }
    Agreement { calls: traced, continued, untraced }
}

/// Returns how often the guest made each call, as an entry of a multicall or not.
fn counts(calls: &[GuestCall]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for call in calls {
        let entries = call.entries.iter().map(|(name, _)| name);
        for name in std::iter::once(&call.name).chain(entries) {
            *counts.entry(name.clone()).or_default() += 1;
        }
    }
    counts
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.calls.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let (continued, untraced) = (self.continued, self.untraced);
        write!(f, "{}; {continued} records are of preempted calls, ", counts.join(", "))?;
        write!(f, "{untraced} of calls that are not traced")
    }
}

/// Where the trace and the record part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(String);

impl Difference {
    /// At `call`, or after the last call.
    fn new(call: Option<&GuestCall>, places: &BTreeSet<usize>, records: &[RecordedCall]) -> Self {
        const SHOWN: usize = 3;
        // The place that is most likely meant: before the calls that need not be traced.
        let at = places.first().copied().unwrap_or(0);
        let next: Vec<_> = records[at..].iter().take(SHOWN).map(RecordedCall::to_string).collect();
        let traced = call.map_or("nothing more", |call| &call.line);
        let recorded =
            if next.is_empty() { "nothing more".to_owned() } else { next.join(", then ") };
        Self(format!("the guest traced `{traced}`, where Xen recorded {recorded} (record {at})"))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded::tests::call;
    use super::*;

    fn traced(name: &str, length: Option<u32>) -> GuestCall {
        GuestCall {
            line: format!("#7 {name}"),
            name: name.to_owned(),
            length,
            preemptions: if length.is_some() { u64::MAX } else { 0 },
            entries: Vec::new(),
        }
    }

    fn exchange(preemptions: u64) -> GuestCall {
        GuestCall { preemptions, ..traced("memory_op", None) }
    }

    fn batch(entries: &[(&str, Option<u32>)]) -> GuestCall {
        let entries = entries.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect();
        GuestCall { entries, ..traced("multicall", None) }
    }

    fn entry(name: &str, count: Option<u32>) -> RecordedCall {
        RecordedCall { is_entry: true, ..call(name, count) }
    }

    fn agree(calls: &[GuestCall], records: &[RecordedCall]) -> Result<(u64, u64), String> {
        let agreement = of(calls, records).map_err(|difference| difference.to_string())?;
        Ok((agreement.continued, agreement.untraced))
    }

    #[test]
    fn calls_agree_in_their_order_and_with_their_lengths() {
        let calls = [traced("mmu_update", Some(8)), exchange(0), traced("update_va_mapping", None)];
        let [update, memory, map] =
            [("mmu_update", Some(8)), ("memory_op", None), ("update_va_mapping", None)]
                .map(|(name, count)| call(name, count));
        assert_eq!(agree(&calls, &[update, memory, map]), Ok((0, 0)));
        for wrong in [
            vec![update, memory],
            vec![update, memory, map, map],
            vec![update, map, memory],
            vec![call("mmu_update", Some(7)), memory, map],
            vec![update, memory, memory, map],
        ] {
            assert!(agree(&calls, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_call_that_the_guest_forgot_is_named() {
        let records = [call("memory_op", None), call("update_va_mapping", None)];
        let why = agree(&[exchange(0)], &records).unwrap_err();
        assert!(why.contains("nothing more") && why.contains("update_va_mapping"), "{why}");
        let why = agree(&[exchange(0), exchange(0)], &records).unwrap_err();
        assert!(why.contains("traced `#7 memory_op`, where"), "{why}");
    }

    #[test]
    fn untraced_calls_lie_anywhere() {
        let wake = traced("event_channel_op", None);
        let console = call("event_channel_op", None);
        let records = [console, call("iret", None), call("memory_op", None), console, console];
        assert_eq!(agree(&[exchange(0), wake.clone()], &records), Ok((0, 3)));
        assert_eq!(agree(&[wake.clone(), exchange(0), wake.clone()], &records), Ok((0, 2)));
        assert!(agree(&[wake.clone(), wake, exchange(0)], &records).is_err());
    }

    #[test]
    fn preempted_lists_are_merged() {
        let again = |rest| call("mmu_update", Some(PREEMPTED | rest));
        let [first, event] = [call("mmu_update", Some(8)), call("iret", None)];
        let records = [first, event, again(5), again(5), again(2)];
        assert_eq!(agree(&[traced("mmu_update", Some(8))], &records), Ok((3, 1)));
        assert!(agree(&[traced("mmu_update", Some(8))], &records[1..]).is_err());
    }

    #[test]
    fn an_exchange_is_repeated_no_more_than_xen_can_preempt_it() {
        let records = [call("memory_op", None); 4];
        assert_eq!(agree(&[exchange(2), exchange(0)], &records), Ok((2, 0)));
        assert_eq!(agree(&[exchange(1), exchange(1)], &records), Ok((2, 0)));
        assert!(agree(&[exchange(1), exchange(0)], &records).is_err());
    }

    #[test]
    fn a_multicall_agrees_entry_by_entry() {
        let calls = [batch(&[("mmu_update", Some(8)), ("memory_op", None)])];
        let [update, memory] = [entry("mmu_update", Some(8)), entry("memory_op", None)];
        let batch = |remaining| call("multicall", Some(remaining));
        assert_eq!(agree(&calls, &[batch(2), update, memory]), Ok((0, 0)));
        // Preempted between the entries, within the first one, and within the last one.
        assert_eq!(agree(&calls, &[batch(2), update, batch(1), memory]), Ok((1, 0)));
        let rest = entry("mmu_update", Some(PREEMPTED | 3));
        assert_eq!(agree(&calls, &[batch(2), update, batch(2), rest, memory]), Ok((2, 0)));
        let within = [batch(2), update, memory, call("iret", None), batch(1), memory];
        assert_eq!(agree(&calls, &within), Ok((2, 1)));
        for wrong in [
            vec![batch(2), update],
            vec![batch(2), memory, update],
            vec![batch(3), update, memory],
            vec![batch(2), update, memory, memory],
            vec![batch(2), update, call("memory_op", None)],
        ] {
            assert!(agree(&calls, &wrong).is_err(), "{wrong:?}");
        }
    }
}
