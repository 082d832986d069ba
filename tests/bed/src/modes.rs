//! `bed run`: the image in each of the chosen modes.

use std::sync::Arc;

use crate::boot::Dom0Boot;
use crate::choice::{GuestMode, KernelArgs};
use crate::context::Context;
use crate::domu::{self, SessionSpec};
use crate::error::Result;
use crate::guest::{Expect, Guest, GuestVerdict};
use crate::parallel::{self, SuitePart};
use crate::report::Reporter;
use crate::setup::{Bed, NO_TOOLS};

/// Boots the chosen modes and prints the verdicts.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let bed = context.bed(&mut reporter)?;
    let modes = context.settings.modes.clone().unwrap_or(GuestMode::ALL.to_vec());
    let args = &context.settings.args;
    parallel::run(parts(&bed, &modes, args), &mut reporter);
    reporter.close(&context.settings.target)
}

/// Returns the image as the command line wants it, with another kernel command line.
pub fn guest(bed: &Bed, mode: GuestMode, args: &KernelArgs) -> Guest {
    let settings = &bed.context.settings;
    Guest {
        memory: settings.memory,
        vcpus: settings.vcpus,
        expect: if args.holds_after_a_probe() { Expect::Probe } else { Expect::Image },
        ..Guest::new(mode, mode.as_str(), args.clone(), settings.timeout)
    }
}

/// Returns a part for each dom0 mode, and one for all domU modes, which share a boot of the Linux
/// dom0. Each guest is judged by its own tests.
pub fn parts<'p>(bed: &'p Bed, modes: &[GuestMode], args: &KernelArgs) -> Vec<SuitePart<'p>> {
    let guests = modes.iter().map(|mode| guest(bed, *mode, args));
    let (dom0s, domus): (Vec<_>, Vec<_>) = guests.partition(|guest| guest.mode.is_dom0());
    let mut parts: Vec<_> = dom0s.into_iter().map(|guest| part(bed, guest)).collect();
    if !domus.is_empty() {
        parts.push(session(bed, SessionSpec { name: "linux-dom0", guests: domus }));
    }
    parts
}

/// Returns a part with one guest that is judged by its own tests.
pub fn part(bed: &Bed, guest: Guest) -> SuitePart<'_> {
    match guest.mode.is_dom0() {
        true => dom0(bed, guest),
        false => session(bed, SessionSpec { name: "linux-dom0", guests: vec![guest] }),
    }
}

fn dom0(bed: &Bed, guest: Guest) -> SuitePart<'_> {
    SuitePart::new(guest.need(), move |reporter| {
        let doing = format!("{}: booting the image as dom0 of Xen {}", guest.mode, bed.xen);
        reporter.step(doing, "its verdict");
        let outcome = Dom0Boot::judged(bed, &guest, reporter)?;
        reporter.judge(outcome);
        Ok(())
    })
}

fn session(bed: &Bed, session: SessionSpec) -> SuitePart<'_> {
    SuitePart::new(session.need(), move |reporter| {
        if bed.linux.is_none() {
            session.guests.iter().for_each(|guest| reporter.skip(&guest.name, NO_TOOLS));
            return Ok(());
        }
        for (outcome, _) in domu::judged(bed, &session, reporter)? {
            reporter.judge(outcome);
        }
        Ok(())
    })
}
