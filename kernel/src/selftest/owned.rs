//! Frames and extents of a test, which are freed however the test ends.
//!
//! Without this, a test that fails would make the test of the accounts fail too.

use alloc::format;
use alloc::string::ToString;
use core::ops::Deref;

use xen_contig::exchange::{ExchangeError, ExchangeFailure};
use xen_contig::frames::FrameRun;

use super::{TestOutcome, error, fail, skip};
use crate::extent::ExtentRun;
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

/// An extent that is released on drop.
pub struct OwnedExtent<'m> {
    machine: &'m Machine,
    /// `None` after [`release`](Self::release).
    extent: Option<ExtentRun>,
}

impl<'m> OwnedExtent<'m> {
    /// Takes ownership of an extent.
    pub const fn of(machine: &'m Machine, extent: ExtentRun) -> Self {
        Self { machine, extent: Some(extent) }
    }

    /// Exchanges the extent for single frames.
    pub fn release(mut self) -> Result<OwnedRun<'m>, TestOutcome> {
        self.exchange_back()
    }

    fn exchange_back(&mut self) -> Result<OwnedRun<'m>, TestOutcome> {
        let machine = self.machine;
        let Some(extent) = self.extent.take() else { unreachable!("an extent is released once") };
        let mfn = extent.mfn();
        let Some(exchanger) = machine.exchanger() else { error!("{}", machine.capability) };
        let Some(mut lists) = machine.lists(2 * extent.order().frames()) else {
            error!("the guest has no free memory for the lists of {extent:?}")
        };
        match exchanger.release(extent, lists.words()) {
            Ok(run) => Ok(OwnedRun::of(machine, run)),
            Err(failure) => {
                fail!("releasing the extent at mfn {mfn}: {}", free_remaining(machine, failure))
            }
        }
    }
}

impl Deref for OwnedExtent<'_> {
    type Target = ExtentRun;

    fn deref(&self) -> &ExtentRun {
        let Some(extent) = &self.extent else { unreachable!("`release` consumes the value") };
        extent
    }
}

impl Drop for OwnedExtent<'_> {
    fn drop(&mut self) {
        if self.extent.is_some() {
            // The test has failed already. Frames that do not come back are missing in the accounts.
            let _missing = self.exchange_back();
        }
    }
}

/// Returns the outcome of a test whose exchange was refused, and frees the runs that remain.
///
/// A lack of memory ends the test without a failure. The reason has no figures, so that the runner
/// lists all such tests in one line.
pub fn refused(machine: &Machine, what: &str, failure: ExchangeFailure<'_>) -> TestOutcome {
    match free_remaining(machine, failure) {
        ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. } => {
            TestOutcome::Skip("Xen has no free extent of the size that the test needs".to_string())
        }
        error => TestOutcome::Fail(format!("{what}: {error}")),
    }
}

/// Frees the runs that remain after a failure, and returns the error.
pub fn free_remaining(machine: &Machine, failure: ExchangeFailure<'_>) -> ExchangeError {
    failure.remaining.into_iter().for_each(|run| machine.give(run));
    failure.error
}
