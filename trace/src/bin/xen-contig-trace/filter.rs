//! `-e`: which hypercalls and operations are shown.

use std::collections::BTreeSet;

use xen_contig_trace::{Trace, TracedCall};

use crate::names::{HYPERCALLS, OPERATIONS};

/// The names of `-e`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    included: Vec<String>,
    excluded: Vec<String>,
}

impl Filter {
    /// Makes a filter of the values of all `-e`.
    ///
    /// As for strace, `!` at the beginning of a value excludes every name of it, and `trace=` may
    /// come before the names. In this program `!` may also be before a single name.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for value in values {
            let value = value.strip_prefix("trace=").unwrap_or(value);
            let all_excluded = value.starts_with('!');
            for name in value.split(',') {
                let bare = name.trim().trim_start_matches('!');
                if bare.is_empty() {
                    return Err(format!("-e {value}: a name is missing"));
                }
                let excluded = all_excluded || name.trim().starts_with('!');
                let list = if excluded { &mut filter.excluded } else { &mut filter.included };
                list.push(bare.to_owned());
            }
        }
        Ok(filter)
    }

    /// Checks the names against those that this program knows and those that the trace has.
    ///
    /// # Errors
    /// A message that lists the names.
    pub fn check(&self, trace: &Trace) -> Result<(), String> {
        let given = || self.included.iter().chain(&self.excluded);
        if given().next().is_none() {
            return Ok(());
        }
        let calls = trace.boots.iter().flat_map(|boot| &boot.calls);
        let seen: BTreeSet<&str> = calls
            .flat_map(|call| [call.hypercall.as_str()].into_iter().chain(call.words()))
            .collect();
        let is_known = |name: &str| {
            HYPERCALLS.contains(&name) || OPERATIONS.contains(&name) || seen.contains(name)
        };
        let Some(unknown) = given().find(|name| !is_known(name)) else { return Ok(()) };
        let others =
            seen.iter().filter(|name| !HYPERCALLS.contains(name) && !OPERATIONS.contains(name));
        Err(format!(
            "-e {unknown}: there is no such hypercall or operation\n\
             hypercalls: {}\noperations: {}",
            HYPERCALLS.join(" "),
            OPERATIONS.iter().chain(others).copied().collect::<Vec<_>>().join(" "),
        ))
    }

    /// Returns true if the call is shown.
    pub fn picks(&self, call: &TracedCall) -> bool {
        let any = |names: &[String]| names.iter().any(|name| is_named(call, name));
        (self.included.is_empty() || any(&self.included)) && !any(&self.excluded)
    }
}

/// Returns true if the name is that of the hypercall, or of an operation that it carries.
fn is_named(call: &TracedCall, name: &str) -> bool {
    if call.hypercall == name || call.words().any(|word| word == name) {
        return true;
    }
    call.hypercall == "multicall" && carries(call, name)
}

/// Returns true if a multicall has an entry of this name, such as `mmuext_op=1:tlb_flush_all`.
fn carries(call: &TracedCall, name: &str) -> bool {
    let operation_of_entry =
        |value: &str| value.split_once(':').is_some_and(|(_, operation)| operation == name);
    call.arguments.iter().any(|argument| match &argument.name {
        Some(entry) => entry == name || operation_of_entry(&argument.value),
        None => argument.value == "exchange" && name == "memory_op",
    })
}
