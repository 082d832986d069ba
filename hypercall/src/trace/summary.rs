//! Totals of a trace.

use core::fmt;

use arrayvec::ArrayVec;

use super::entry::TraceEntry;
use super::{Hypercall, Phase, Timescale};
use crate::XenErrno;

/// The number of pairs of hypercall and errno that a summary tells apart.
const ERRORS: usize = 32;

/// The totals of one hypercall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// The number of calls.
    pub calls: u64,
    /// The number of operations that Xen did.
    pub done: u64,
    /// The number of operations that flush a TLB.
    pub flushes: u64,
    /// The number of calls that returned an error, or whose batch has an entry that did.
    pub errors: u64,
    /// The time of the calls, in ticks of the tracer's clock.
    pub ticks: u64,
}

impl CallTotals {
    fn add(&mut self, other: &Self) {
        let Self { calls, done, flushes, errors, ticks } = other;
        self.calls += calls;
        self.done = self.done.saturating_add(*done);
        self.flushes += flushes;
        self.errors += errors;
        self.ticks += ticks;
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            done: self.done - before.done,
            flushes: self.flushes - before.flushes,
            errors: self.errors - before.errors,
            ticks: self.ticks - before.ticks,
        }
    }
}

/// The totals of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTotals {
    /// How many times the phase ran.
    pub times: u64,
    /// The number of hypercalls in it.
    pub calls: u64,
    /// Its time, in ticks of the tracer's clock.
    pub ticks: u64,
    /// The part of its time in hypercalls.
    pub xen_ticks: u64,
}

/// How often a hypercall returned an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCount {
    /// The hypercall.
    pub hypercall: Hypercall,
    /// The error.
    pub errno: XenErrno,
    /// The number of calls.
    pub calls: u64,
}

/// The totals of all hypercalls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    rows: [CallTotals; Hypercall::COUNT],
    phases: [PhaseTotals; Phase::COUNT],
    errors: ArrayVec<ErrorCount, ERRORS>,
}

impl Summary {
    /// Makes a summary without calls.
    pub const fn new() -> Self {
        const NO_CALLS: CallTotals =
            CallTotals { calls: 0, done: 0, flushes: 0, errors: 0, ticks: 0 };
        const NO_PHASE: PhaseTotals = PhaseTotals { times: 0, calls: 0, ticks: 0, xen_ticks: 0 };
        Self {
            rows: [NO_CALLS; Hypercall::COUNT],
            phases: [NO_PHASE; Phase::COUNT],
            errors: ArrayVec::new_const(),
        }
    }

    /// Returns the totals of one hypercall.
    pub const fn row(&self, hypercall: Hypercall) -> CallTotals {
        self.rows[hypercall as usize]
    }

    /// Returns the totals of one phase. They are counted while a tracer records details.
    pub const fn phase(&self, phase: Phase) -> PhaseTotals {
        self.phases[phase as usize]
    }

    /// Returns the errors by hypercall and errno, at most 32 pairs.
    pub fn errors(&self) -> &[ErrorCount] {
        &self.errors
    }

    /// Returns the sum over all hypercalls.
    pub fn total(&self) -> CallTotals {
        let mut sum = CallTotals::default();
        self.rows.iter().for_each(|row| sum.add(row));
        sum
    }

    /// Adds the totals of another tracer.
    pub fn add(&mut self, other: &Self) {
        self.rows.iter_mut().zip(&other.rows).for_each(|(row, more)| row.add(more));
        for (phase, more) in self.phases.iter_mut().zip(&other.phases) {
            phase.times += more.times;
            phase.calls += more.calls;
            phase.ticks += more.ticks;
            phase.xen_ticks += more.xen_ticks;
        }
        for error in &other.errors {
            self.count_error(error.hypercall, error.errno, error.calls);
        }
    }

    /// Returns what was added since an earlier state of the same summary.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut rest = self.clone();
        for (row, old) in rest.rows.iter_mut().zip(&before.rows) {
            *row = row.since(old);
        }
        for (phase, old) in rest.phases.iter_mut().zip(&before.phases) {
            phase.times -= old.times;
            phase.calls -= old.calls;
            phase.ticks -= old.ticks;
            phase.xen_ticks -= old.xen_ticks;
        }
        for old in &before.errors {
            let same = |error: &&mut ErrorCount| error.is_of(old.hypercall, old.errno);
            if let Some(error) = rest.errors.iter_mut().find(same) {
                error.calls -= old.calls;
            }
        }
        rest.errors.retain(|error| error.calls > 0);
        rest
    }

    #[inline]
    pub(crate) fn count(&mut self, entry: &TraceEntry) {
        let hypercall = entry.call.hypercall();
        let row = &mut self.rows[hypercall as usize];
        row.calls += 1;
        row.done = row.done.saturating_add(entry.operations_done());
        row.flushes += entry.call.flushes();
        row.ticks += entry.duration;
        if let Some(errno) = entry.error() {
            row.errors += 1;
            self.count_error(hypercall, errno, 1);
        }
    }

    pub(crate) fn count_phase(&mut self, phase: Phase, calls: u64, ticks: u64, xen_ticks: u64) {
        let totals = &mut self.phases[phase as usize];
        totals.times += 1;
        totals.calls += calls;
        totals.ticks += ticks;
        totals.xen_ticks += xen_ticks;
    }

    fn count_error(&mut self, hypercall: Hypercall, errno: XenErrno, calls: u64) {
        let same = |error: &&mut ErrorCount| error.is_of(hypercall, errno);
        match self.errors.iter_mut().find(same) {
            Some(error) => error.calls += calls,
            None => {
                let _dropped = self.errors.try_push(ErrorCount { hypercall, errno, calls });
            }
        }
    }

    /// Returns the table of hypercalls as text, with `part` in front of each line.
    pub fn table<'s>(&'s self, part: &'s str, time: &'s Timescale) -> impl fmt::Display + 's {
        Table { summary: self, part, time }
    }

    /// Returns the table of phases as text. Empty if no phase ran.
    pub fn phase_table<'s>(&'s self, time: &'s Timescale) -> impl fmt::Display + 's {
        PhaseTable { summary: self, time }
    }
}

impl ErrorCount {
    fn is_of(&self, hypercall: Hypercall, errno: XenErrno) -> bool {
        self.hypercall == hypercall && self.errno == errno
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

struct Table<'s> {
    summary: &'s Summary,
    part: &'s str,
    time: &'s Timescale,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { summary, part, time } = self;
        writeln!(
            f,
            "{:<24} {:>8} {:>10} {:>8} {:>7} {:>13} {:>6}",
            part, "calls", "done", "errors", "flushes", "time-ns", "share"
        )?;
        let total = summary.total();
        let made = Hypercall::all().map(|hypercall| (hypercall.name(), summary.row(hypercall)));
        for (name, row) in made.filter(|(_, row)| row.calls > 0).chain([("total", total)]) {
            // In tenths of a percent, because a kernel need not have floating point.
            let share = u128::from(row.ticks) * 1000 / u128::from(total.ticks.max(1));
            writeln!(
                f,
                "{part} {name:<width$} {:>8} {:>10} {:>8} {:>7} {:>13} {:>3}.{}%",
                row.calls,
                row.done,
                row.errors,
                row.flushes,
                time.duration(row.ticks),
                share / 10,
                share % 10,
                width = 23_usize.saturating_sub(part.len())
            )?;
        }
        for ErrorCount { hypercall, errno, calls } in &summary.errors {
            writeln!(f, "error {part} {} {errno} {calls}", hypercall.name())?;
        }
        Ok(())
    }
}

struct PhaseTable<'s> {
    summary: &'s Summary,
    time: &'s Timescale,
}

impl fmt::Display for PhaseTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { summary, time } = self;
        let ran = Phase::ALL.map(|phase| (phase, summary.phase(phase)));
        let mut ran = ran.into_iter().filter(|(_, totals)| totals.times > 0).peekable();
        if ran.peek().is_none() {
            return Ok(());
        }
        writeln!(
            f,
            "{:<24} {:>8} {:>8} {:>13} {:>13}",
            "phase", "times", "calls", "time-ns", "xen-ns"
        )?;
        for (phase, totals) in ran {
            writeln!(
                f,
                "phase {:<18} {:>8} {:>8} {:>13} {:>13}",
                phase.name(),
                totals.times,
                totals.calls,
                time.duration(totals.ticks),
                time.duration(totals.xen_ticks)
            )?;
        }
        Ok(())
    }
}
