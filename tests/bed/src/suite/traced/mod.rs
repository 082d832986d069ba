//! The hypercall trace, seen from outside the guest: it is in Xen's log in every mode, and Xen recorded
//! the same hypercalls of a PV guest.

mod agreement;
mod guest_calls;
mod in_log;
mod recorded;

use std::time::Duration;

use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::domu::{self, JobResult};
use crate::error::Result;
use crate::expectation::Expectation;
use crate::expected;
use crate::parallel::SuitePart;
use crate::report::{GuestOutcome, Reporter};
use crate::setup::{Bed, NO_TOOLS};

use agreement::Agreement;

/// The tests that are traced: some of each kind of hypercall, refused ones too.
const ARGS: &str = "trace=full selftest=exchange-order-0,exchange-order-4,exchange-order-9,refill-order-0,\
                    refill-order-4,refill-order-9,stale-alias,vmap-*,accounts-balanced";

/// For a guest with few tests.
const LIMIT: Duration = Duration::from_secs(120);

fn traced(mode: GuestMode) -> Result<Expectation> {
    let guest = Expectation::success(mode, "traced", KernelArgs::new(ARGS)?, LIMIT);
    let passed = vec!["accounts-balanced"];
    // Xen records the hypercalls of PV guests only.
    let is_recorded = mode == GuestMode::PvDomu;
    Ok(Expectation { passed, ..guest }.with(|guest| guest.is_recorded = is_recorded))
}

/// Returns a part for each dom0 mode.
pub fn dom0s(bed: &Bed) -> Result<Vec<SuitePart<'_>>> {
    let part = |mode| {
        let expectation = traced(mode)?;
        Ok(SuitePart::new(expectation.guest.need(), move |reporter: &mut Reporter| {
            let guest = &expectation.guest;
            reporter.step(format!("{} on Xen {}", guest.name, bed.xen), "Xen's log");
            let outcome = Dom0Boot::judged(bed, guest, reporter)?;
            expected::note(bed, &expectation, &outcome, reporter);
            note_log(bed, &outcome, reporter)
        }))
    };
    [GuestMode::PvDom0, GuestMode::PvhDom0].into_iter().map(part).collect()
}

/// Returns a part with both domU modes in one boot of the Linux dom0, after `others`.
pub fn domus(bed: &Bed, others: Vec<Expectation>) -> Result<SuitePart<'_>> {
    let name = "linux-dom0-traced";
    let traced = [traced(GuestMode::PvDomu)?, traced(GuestMode::PvhDomu)?];
    let expectations: Vec<_> = others.into_iter().chain(traced).collect();
    let session = expected::session(name, &expectations);
    Ok(SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            reporter.skip(&format!("{name} on Xen {}", bed.xen), NO_TOOLS);
            return Ok(());
        }
        let results = domu::judged(bed, &session, reporter)?;
        for (expectation, (outcome, result)) in expectations.iter().zip(&results) {
            expected::note(bed, expectation, outcome, reporter);
            if expectation.guest.args.traces() {
                note_log(bed, outcome, reporter)?;
            }
            if expectation.guest.is_recorded {
                note_record(bed, outcome, result, reporter);
            }
        }
        Ok(())
    }))
}

/// Notes whether Xen's log has the trace of a guest, as the guest printed it.
fn note_log(bed: &Bed, outcome: &GuestOutcome, reporter: &mut Reporter) -> Result<()> {
    let result = in_log::compare(&outcome.console, &outcome.xen_log()?);
    let name = format!("the trace of {} in the log of Xen {}", outcome.name, bed.xen);
    match result {
        Ok(lines) => reporter.note(&format!("{name}: {lines} lines"), Ok(())),
        Err(why) => reporter.note(&name, Err(format!("{why}; see {}", outcome.dir.display()))),
    }
    Ok(())
}

/// Notes whether Xen recorded the hypercalls that a guest traced.
fn note_record(bed: &Bed, outcome: &GuestOutcome, result: &JobResult, reporter: &mut Reporter) {
    let name = format!("xentrace on Xen {} of {}", bed.xen, outcome.name);
    let see = |why: String| format!("{why}; see {}", outcome.dir.display());
    let records = match recorded::of(&result.report) {
        Ok(records) => records,
        Err(why) => return reporter.error(&name, &see(why)),
    };
    let agreement = guest_calls::of(&outcome.console).and_then(|calls| {
        agreement::of(&calls, &records).map_err(|difference| difference.to_string())
    });
    match agreement.map(|agreement: Agreement| agreement.to_string()) {
        Ok(counts) => reporter.note(&format!("{name}: {counts}"), Ok(())),
        Err(why) => reporter.note(&name, Err(see(why))),
    }
}
