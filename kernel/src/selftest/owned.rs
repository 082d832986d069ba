//! Frames of a test, which are freed however the test ends.
//!
//! Without this, a test that fails would make the test of the accounts fail too.

use core::ops::Deref;

use xen_contig::exchange::ExchangeFailure;
use xen_contig::frames::FrameRun;

use super::{TestOutcome, skip};
use crate::machine::Machine;

/// A run that is freed on drop.
pub struct OwnedRun<'m> {
    machine: &'m Machine,
    /// `None` after [`into_run`](Self::into_run).
    run: Option<FrameRun>,
}

impl<'m> OwnedRun<'m> {
    /// Takes a run, or skips the test.
    pub fn take(machine: &'m Machine, frames: u64) -> Result<Self, TestOutcome> {
        match machine.take(frames) {
            Some(run) => Ok(Self::of(machine, run)),
            None => skip!("the guest has no run of {frames} free frames"),
        }
    }

    /// Takes ownership of a run.
    pub const fn of(machine: &'m Machine, run: FrameRun) -> Self {
        Self { machine, run: Some(run) }
    }

    /// Returns the run. The caller then owns it.
    pub fn into_run(mut self) -> FrameRun {
        let Some(run) = self.run.take() else { unreachable!("`into_run` consumes the value") };
        run
    }
}

impl Deref for OwnedRun<'_> {
    type Target = FrameRun;

    fn deref(&self) -> &FrameRun {
        let Some(run) = &self.run else { unreachable!("`into_run` consumes the value") };
        run
    }
}

impl Drop for OwnedRun<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.machine.give(run);
        }
    }
}

/// Frees the runs that remain after a failure, and returns the error.
pub fn free_remaining(
    machine: &Machine,
    failure: ExchangeFailure<'_>,
) -> xen_contig::exchange::ExchangeError {
    failure.remaining.into_iter().for_each(|run| machine.give(run));
    failure.error
}
