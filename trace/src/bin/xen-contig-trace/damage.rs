//! What is missing in a log, in one message.

use xen_contig_trace::{Loss, LossKind, SpanKind, Trace};

use crate::selection::Chosen;

/// Names the damage to the chosen boots, or returns nothing if they are whole.
pub fn report(trace: &Trace, boots: &[Chosen<'_>]) -> Option<String> {
    let of_first = boots.iter().any(|chosen| chosen.number == 1);
    let chosen = boots.iter().flat_map(|chosen| &chosen.boot.losses);
    let stray = trace.losses().filter(|loss| of_first && is_before_first_boot(trace, loss));
    let mut sums = Sums::default();
    chosen.chain(stray).for_each(|loss| sums.add(loss));
    let mut parts = sums.parts();
    parts.extend(unfinished(boots));
    if boots.iter().all(|chosen| chosen.boot.calls.is_empty()) {
        parts.push("the trace has no calls; the guest prints them with `trace=full`".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn is_before_first_boot(trace: &Trace, loss: &Loss) -> bool {
    trace.boots.first().is_some_and(|boot| loss.line < boot.line)
}

/// Says why there is no trace and what to do.
pub fn no_trace(trace: &Trace) -> String {
    let mut sums = Sums::default();
    trace.losses().for_each(|loss| sums.add(loss));
    let damage = sums.parts().join("; ");
    let found = if damage.is_empty() { String::new() } else { format!(" ({damage})") };
    format!(
        "there is no trace in the input{found}\n\
         * put `trace=full` on the command line of the guest's kernel; xl: `extra=\"trace=full\"`\n\
         * `xl dmesg` has the lines of a PVH domU only if Xen was booted with `guest_loglvl=all`\n\
         * a PV domU prints to its console: `xl console`, or the log of xenconsoled; \
         relay-console.sh copies it into `xl dmesg`\n\
         * `conring_size=` on Xen's command line makes the ring large enough for a whole boot"
    )
}

#[derive(Default)]
struct Sums {
    unreadable: u64,
    first: Option<String>,
    records: u64,
    missing: u64,
    frames: u64,
    no_beginning: bool,
    stopped: Option<usize>,
    version: Option<u64>,
}

impl Sums {
    fn add(&mut self, loss: &Loss) {
        match &loss.kind {
            LossKind::Overwritten { records, .. } => {
                self.records = self.records.saturating_add(*records);
            }
            LossKind::Missing { calls } => self.missing = self.missing.saturating_add(*calls),
            LossKind::FramesCut { frames, .. } => {
                self.frames = self.frames.saturating_add(*frames);
            }
            LossKind::NoBeginning => self.no_beginning = true,
            LossKind::ClockStopped => drop(self.stopped.get_or_insert(loss.line)),
            LossKind::UnknownVersion { version } => self.version = Some(*version),
            LossKind::Unreadable { .. } | _ => {
                self.unreadable += 1;
                self.first.get_or_insert_with(|| format!("line {}: {}", loss.line, loss.kind));
            }
        }
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        if let Some(version) = self.version {
            parts
                .push(format!("the trace has version {version}, and this program reads version 1"));
        }
        if let Some(first) = &self.first {
            let lines = plural(self.unreadable, "line", "lines");
            parts.push(format!("{lines} could not be read (first: {first})"));
        }
        if self.records > 0 {
            let records = plural(self.records, "record was", "records were");
            parts.push(format!("{records} lost, because a ring was full; `ring=` makes it larger"));
        }
        if self.missing > 0 {
            let calls = plural(self.missing, "call is", "calls are");
            parts.push(format!("{calls} missing in the log"));
        }
        if self.no_beginning {
            parts.push("the beginning of the trace is missing (no version line)".to_owned());
        }
        if let Some(line) = self.stopped {
            parts.push(format!(
                "calls have the same time from line {line} on, because the guest's clock stood \
                 still; their tests and operations can be wrong"
            ));
        }
        if self.frames > 0 {
            let frames = plural(self.frames, "frame", "frames");
            parts.push(format!("the guest left out {frames} of long lists"));
        }
        parts
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Names the test in which the trace ends.
fn unfinished(boots: &[Chosen<'_>]) -> Option<String> {
    let tests = boots.last()?.boot.spans.iter().filter(|span| span.kind == SpanKind::Test);
    let last = tests.max_by_key(|span| span.start)?;
    let open = last.duration.is_none();
    open.then(|| format!("the trace ends inside of the test {}", last.name))
}
