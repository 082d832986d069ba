//! Frames of a test's, which go back however it ends: a test that fails must not have the accounts
//! fail, too.

use core::ops::Deref;

use xen_contig::exchange::ExchangeFailure;
use xen_contig::frames::FrameRun;

use super::{TestOutcome, skip};
use crate::machine::Machine;

/// A run that is given back when it is dropped.
pub struct Owned<'m> {
    machine: &'m Machine,
    /// `None` only once it was handed on.
    run: Option<FrameRun>,
}

impl<'m> Owned<'m> {
    /// Takes a run, or skips the test.
    pub fn take(machine: &'m Machine, frames: u64) -> Result<Self, TestOutcome> {
        match machine.take(frames) {
            Some(run) => Ok(Self::of(machine, run)),
            None => skip!("the guest has no {frames} free frames in a row"),
        }
    }

    /// A run that was handed on and came back.
    pub const fn of(machine: &'m Machine, run: FrameRun) -> Self {
        Self { machine, run: Some(run) }
    }

    /// Hands the run on to who takes it.
    pub fn into_run(mut self) -> FrameRun {
        let Some(run) = self.run.take() else { unreachable!("a run is handed on once") };
        run
    }
}

impl Deref for Owned<'_> {
    type Target = FrameRun;

    fn deref(&self) -> &FrameRun {
        let Some(run) = &self.run else { unreachable!("nobody has it once it was handed on") };
        run
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.machine.give(run);
        }
    }
}

/// Gives back what a failure left, and says why there was one.
pub fn give_left(
    machine: &Machine,
    failure: ExchangeFailure<'_>,
) -> xen_contig::exchange::ExchangeError {
    failure.remaining.into_iter().for_each(|run| machine.give(run));
    failure.error
}
