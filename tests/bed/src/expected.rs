//! Boots guests and holds the runner's verdict on each against what was expected.

use crate::boot::Dom0Boot;
use crate::domu::{self, JobResult, SessionSpec};
use crate::expectation::Expectation;
use crate::guest::End;
use crate::parallel::SuitePart;
use crate::report::{GuestOutcome, Reporter};
use crate::setup::{Bed, NO_TOOLS};

/// Returns a part that boots a dom0 and notes whether it is as expected.
pub fn dom0(bed: &Bed, expectation: Expectation) -> SuitePart<'_> {
    SuitePart::new(expectation.guest.need(), move |reporter| {
        let guest = &expectation.guest;
        reporter.step(format!("{} on Xen {}", guest.name, bed.xen), "the next guest");
        let mut outcome = Dom0Boot::judged(bed, guest, reporter)?;
        if expectation.may_stand_still() && outcome.end == End::StillRunning {
            say_stood_still(&guest.name, reporter);
            outcome = Dom0Boot::judged(bed, guest, reporter)?;
        }
        note(bed, &expectation, &outcome, reporter);
        Ok(())
    })
}

/// Returns a part that makes domUs in one boot of the Linux dom0 and notes whether they are as
/// expected. If a guest stands still that the emulator may stop, all are made once more.
pub fn domus<'p>(
    bed: &'p Bed,
    name: &'static str,
    expectations: Vec<Expectation>,
) -> SuitePart<'p> {
    let session = session(name, &expectations);
    SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip(&format!("{name} on Xen {}", bed.xen), NO_TOOLS);
            return Ok(());
        }
        let mut results = domu::judged(bed, &session, reporter)?;
        let is_still =
            |(expectation, (outcome, _)): &(&Expectation, &(GuestOutcome, JobResult))| {
                // The guest alone, or the whole machine.
                let still = matches!(outcome.end, End::StillRunning | End::Lost(_));
                still && expectation.may_stand_still()
            };
        if let Some((still, _)) = expectations.iter().zip(&results).find(is_still) {
            say_stood_still(&still.guest.name, reporter);
            results = domu::judged(bed, &session, reporter)?;
        }
        note_all(bed, &expectations, &results, reporter);
        Ok(())
    })
}

/// Returns the boot of the Linux dom0 in which these domUs are made.
pub fn session(name: &'static str, expectations: &[Expectation]) -> SessionSpec {
    let guests = expectations.iter().map(|expectation| expectation.guest.clone()).collect();
    SessionSpec { name, guests }
}

/// Notes whether the domUs of a session are as expected.
pub fn note_all(
    bed: &Bed,
    expectations: &[Expectation],
    results: &[(GuestOutcome, JobResult)],
    reporter: &mut Reporter,
) {
    for (expectation, (outcome, _)) in expectations.iter().zip(results) {
        note(bed, expectation, outcome, reporter);
    }
}

/// Notes whether a guest is as expected.
pub fn note(bed: &Bed, expectation: &Expectation, outcome: &GuestOutcome, reporter: &mut Reporter) {
    let name = format!("{} on Xen {}", outcome.name, bed.xen);
    reporter.note_guest(&name, outcome.seconds, expectation.met_by(outcome));
}

/// Prints why a guest is tried once more.
fn say_stood_still(name: &str, reporter: &Reporter) {
    reporter.line(&format!(
        "bed: {name} stood still, as QEMU sometimes stops a PVH guest of several vCPUs (see \
         `Threads`): once more"
    ));
}
