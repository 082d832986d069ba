//! Boots guests and holds the runner's verdict on each against what was expected.

use crate::boot::Dom0Boot;
use crate::context::SuiteContext;
use crate::domu::{self, JobResult, SessionSpec};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::findings::Findings;
use crate::guest::End;
use crate::outcome::GuestOutcome;
use crate::parallel::{Need, SuitePart};
use crate::progress::ProgressLog;
use crate::setup::Bed;

/// Returns a part that boots a dom0 and notes whether it is as expected.
pub fn dom0<'p>(
    context: &'p SuiteContext,
    bed: &'p Bed,
    expectation: Expectation,
) -> SuitePart<'p> {
    let spec = expectation.dom0();
    SuitePart::new(Need::machine(spec.vcpus, spec.memory), move |progress, findings| {
        let name = expectation.name();
        progress.step(format!("{name} on Xen {}", bed.xen), "the next guest");
        let dir = bed.log_dir(&name)?;
        let mut boot = Dom0Boot::run(bed, &spec, &context.image, &dir, progress, |_| false)?;
        if expectation.may_stand_still() && boot.end == End::StillRunning {
            drop(boot);
            say_stood_still(&name, progress);
            boot = Dom0Boot::run(bed, &spec, &context.image, &dir, progress, |_| false)?;
        }
        boot.machine.stop();
        let seen = (&boot.log, &boot.end, boot.seconds);
        let exit = expectation.args.expected_exit();
        let outcome = GuestOutcome::of_dom0(bed.xen, expectation.mode, seen, exit, &dir)?;
        let result = expectation.met_by(&outcome, &boot.log.guest);
        findings.note(progress, &format!("{name} on Xen {}", bed.xen), result);
        Ok(())
    })
}

/// Returns a part that makes domUs in one boot of the Linux dom0 and notes whether they are as
/// expected. If a guest stands still that the emulator may stop, all are made once more.
pub fn domus<'p>(
    context: &'p SuiteContext,
    bed: &'p Bed,
    name: &'static str,
    expectations: Vec<Expectation>,
) -> SuitePart<'p> {
    let jobs = expectations.iter().map(Expectation::job).collect();
    let low_memory = expectations.iter().find_map(|guest| guest.low_memory);
    let session = SessionSpec { jobs, low_memory, root: context.root.clone(), name };
    SuitePart::new(session.need(), move |progress, findings| {
        let mut results = session_of(context, bed, &session, progress)?;
        let is_still = |(expectation, result): &(&Expectation, &JobResult)| {
            // The guest alone, or the whole machine.
            let still = matches!(result.end, End::StillRunning | End::Lost(_));
            still && expectation.may_stand_still()
        };
        if let Some((still, _)) = expectations.iter().zip(&results).find(is_still) {
            say_stood_still(&still.name(), progress);
            results = session_of(context, bed, &session, progress)?;
        }
        note_domus(bed, &expectations, &results, progress, findings)
    })
}

fn session_of(
    context: &SuiteContext,
    bed: &Bed,
    session: &SessionSpec,
    progress: &mut ProgressLog,
) -> Result<Vec<JobResult>> {
    let (results, mut machine) = domu::run(bed, session, &context.image, progress)?;
    machine.stop();
    Ok(results)
}

/// Notes whether the domUs, made in the order of `expectations`, are as expected.
pub fn note_domus(
    bed: &Bed,
    expectations: &[Expectation],
    results: &[JobResult],
    progress: &ProgressLog,
    findings: &mut Findings,
) -> Result<()> {
    for (expectation, result) in expectations.iter().zip(results) {
        let name = &result.job.name;
        let outcome = GuestOutcome::of_domu(bed.xen, result, &bed.log_dir(name)?)?;
        let met = expectation.met_by(&outcome, &result.report.guest_lines());
        findings.note(progress, &format!("{name} on Xen {}", bed.xen), met);
    }
    Ok(())
}

/// Prints why a guest is tried once more.
fn say_stood_still(name: &str, progress: &ProgressLog) {
    progress.line(&format!(
        "bed: {name} stood still, as QEMU sometimes stops a PVH guest of several vCPUs (see \
         `Threads`): once more"
    ));
}
