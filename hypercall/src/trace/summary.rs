//! Totals per hypercall.

use core::fmt;

use super::{CallRecord, Hypercall};
use crate::XenErrno;

/// The totals of one hypercall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// The number of calls.
    pub calls: u64,
    /// The number of operations that the calls carried, whether or not they were done.
    pub sub_operations: u64,
    /// The number of operations that flush a TLB.
    pub flushes: u64,
    /// The number of calls that returned an error.
    pub errors: u64,
}

/// The totals of all hypercalls.
///
/// `Display` prints a table with a row for each hypercall that was called, and their total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    rows: [CallTotals; Hypercall::COUNT],
}

impl Summary {
    /// Makes a summary without calls.
    pub const fn new() -> Self {
        Self {
            rows: [const { CallTotals { calls: 0, sub_operations: 0, flushes: 0, errors: 0 } };
                Hypercall::COUNT],
        }
    }

    /// Returns the totals of one hypercall.
    pub const fn row(&self, hypercall: Hypercall) -> CallTotals {
        self.rows[hypercall as usize]
    }

    /// Returns the sum over all hypercalls.
    pub fn total(&self) -> CallTotals {
        self.rows.iter().fold(CallTotals::default(), |sum, row| CallTotals {
            calls: sum.calls + row.calls,
            sub_operations: sum.sub_operations + row.sub_operations,
            flushes: sum.flushes + row.flushes,
            errors: sum.errors + row.errors,
        })
    }

    /// Adds the totals of another tracer.
    pub fn add(&mut self, other: &Self) {
        for (row, more) in self.rows.iter_mut().zip(&other.rows) {
            row.calls += more.calls;
            row.sub_operations += more.sub_operations;
            row.flushes += more.flushes;
            row.errors += more.errors;
        }
    }

    pub(crate) fn count(&mut self, call: &CallRecord, result: Result<u64, XenErrno>) {
        let row = &mut self.rows[call.hypercall as usize];
        row.calls += 1;
        row.sub_operations += u64::from(call.sub_operations);
        row.flushes += u64::from(call.flushes);
        row.errors += u64::from(result.is_err());
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:>8} {:>14} {:>7} {:>7}",
            "hypercall", "calls", "sub-operations", "flushes", "errors"
        )?;
        let made = self.rows.iter().enumerate().filter(|(_, row)| row.calls > 0);
        let named = made.map(|(index, row)| (Hypercall::name_at(index), *row));
        for (name, row) in named.chain([("total", self.total())]) {
            writeln!(
                f,
                "{name:<18} {:>8} {:>14} {:>7} {:>7}",
                row.calls, row.sub_operations, row.flushes, row.errors
            )?;
        }
        Ok(())
    }
}
