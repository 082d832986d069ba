//! Sums over calls.

use std::collections::BTreeMap;

use xen_contig_trace::{CallResult, TracedCall};

/// Sums over some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSums {
    /// The number of calls, folded ones counted singly.
    pub calls: u64,
    /// The number of calls that Xen refused, or that have an entry that it refused.
    pub errors: u64,
    /// How much Xen did: entries of lists and extents, and 1 for any other call that succeeded.
    pub done: u64,
    /// The time of all calls, in ns.
    pub time: u64,
    /// The time of the longest call, in ns. Of folded calls only the mean is known.
    pub longest: u64,
}

impl CallSums {
    /// Adds a call.
    pub fn add(&mut self, call: &TracedCall) {
        let succeeded = if call.is_error() { 0 } else { call.times };
        self.calls = self.calls.saturating_add(call.times);
        self.errors = self.errors.saturating_add(call.times - succeeded);
        self.done = self.done.saturating_add(done(call).unwrap_or(succeeded));
        self.time = self.time.saturating_add(call.duration);
        self.longest = self.longest.max(call.duration / call.times.max(1));
    }

    /// Returns the mean time of a call, in ns.
    pub fn mean(&self) -> u64 {
        self.time.checked_div(self.calls).unwrap_or(0)
    }
}

/// Returns how much of a call Xen did, if the call says so.
fn done(call: &TracedCall) -> Option<u64> {
    if call.hypercall == "set_trap_table" {
        return call.argument("entries").and_then(|entries| entries.parse().ok());
    }
    match call.operation().unwrap_or_default() {
        // Without progress Xen leaves the number as the caller set it.
        "exchange" if call.hypercall == "memory_op" => {
            let before = call.argument("exchanged").and_then(|number| number.parse().ok());
            Some(call.done?.saturating_sub(before.unwrap_or(0)).saturating_mul(call.times))
        }
        // Xen answers with the number of extents.
        "increase_reservation" | "decrease_reservation" | "populate_physmap" => {
            let CallResult::Value(extents) = call.result else { return None };
            Some(extents.unsigned_abs().saturating_mul(call.times))
        }
        _ => Some(call.done?.saturating_mul(call.times)),
    }
}

/// Sums the calls that have the same key.
pub fn sums<'a, K: Ord>(
    calls: impl IntoIterator<Item = &'a TracedCall>,
    key: impl Fn(&'a TracedCall) -> K,
) -> BTreeMap<K, CallSums> {
    let mut sums = BTreeMap::<K, CallSums>::new();
    calls.into_iter().for_each(|call| sums.entry(key(call)).or_default().add(call));
    sums
}

/// Returns the name of a row for the call: the hypercall and its operation.
pub fn name(call: &TracedCall) -> String {
    let operation = call.operation().map_or(String::new(), |operation| format!(" {operation}"));
    format!("{}{operation}", call.hypercall)
}

/// Returns the share of each time in tenths of a percent.
///
/// The shares sum to exactly 1000 unless all times are 0: what rounding down leaves goes to those
/// with the largest remainders.
pub fn shares(times: &[u64]) -> Vec<u64> {
    let total: u128 = times.iter().map(|time| u128::from(*time)).sum();
    if total == 0 {
        return vec![0; times.len()];
    }
    let scaled = |time: u64| u128::from(time) * 1000;
    let mut shares: Vec<u64> = times.iter().map(|time| (scaled(*time) / total) as u64).collect();
    let rest = 1000 - shares.iter().sum::<u64>() as usize;
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(scaled(times[*index]) % total));
    order.into_iter().take(rest).for_each(|index| shares[index] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use xen_contig_trace::Trace;

    use super::*;

    /// Sums one call.
    fn done_of(call: &str) -> u64 {
        let log = format!("# trace v0 #0 @1.000000000 +1 - {call}\n");
        let mut sums = CallSums::default();
        Trace::parse(log.as_bytes()).boots[0].calls.iter().for_each(|call| sums.add(call));
        sums.done
    }

    #[test]
    fn done_is_counted_as_the_kernel_counts_it() {
        assert_eq!(done_of("memory_op exchange in=8 exchanged=3 -> -EINVAL done=5"), 2);
        assert_eq!(done_of("memory_op exchange in=8 -> 0 done=8 times=2"), 16);
        assert_eq!(done_of("memory_op exchange in=0 exchanged=1 -> -EINVAL done=1 times=2"), 0);
        assert_eq!(done_of("memory_op decrease_reservation extents=8 order=0 -> 8"), 8);
        assert_eq!(done_of("memory_op populate_physmap extents=8 order=0 -> -EINVAL"), 0);
        assert_eq!(done_of("mmu_update count=8 -> 0 done=8"), 8);
        assert_eq!(done_of("multicall entries=3 exchange -> 0 done=2 failed=2:-ENOMEM"), 2);
        assert_eq!(done_of("set_trap_table entries=23 -> 0"), 23);
        assert_eq!(done_of("memory_op current_reservation -> 16384 times=2"), 2);
        assert_eq!(done_of("vcpu_op is_up vcpu=1 -> -ENOENT"), 0);
    }

    #[test]
    fn shares_sum_to_a_hundred_percent() {
        for times in [&[1, 1, 1][..], &[5], &[0, 7], &[u64::MAX, u64::MAX, 1], &[3; 7]] {
            assert_eq!(shares(times).iter().sum::<u64>(), 1000, "{times:?}");
        }
        assert_eq!(shares(&[1, 1, 1]), [334, 333, 333]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
    }
}
