//! Is a granted frame named, and are frame and reference free after the grant?

use alloc::vec::Vec;

use hypercall::DomId;
use xen_contig::addr::Pfn;
use xen_contig::paging::{GuestMemory, Holder};

use super::owned::OwnedRun;
use super::{Check, Test, TestContext, error, fail, skip};
use crate::grants::Grant;
use crate::machine::Machine;
use crate::say;
use crate::verdict::TestOutcome;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("grant-ended", ended));
}

fn ended(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.m2p.is_none() {
        skip!("the kernel has a grant table in a PV guest only");
    }
    if machine.initial_domain {
        skip!("dom0 has no other domain that it could grant a frame to");
    }
    let Some(run) = machine.take(2) else { error!("the guest has no run of two free frames") };
    let run = OwnedRun::of(machine, run);
    let pfns = [run.first(), run.first().add(1)];
    let grants = [granted(machine, pfns[0])?, granted(machine, pfns[1])?];
    let references = grants.each_ref().map(Grant::reference);
    let holders = pfns.map(|pfn| machine.linear.holder(pfn, machine.p2m.mfn(pfn)));
    for grant in grants {
        // No domain knows the references, so none maps the frames.
        if let Err((grant, error)) = grant.end(machine) {
            core::mem::forget(run);
            fail!("ending {grant:?}: {error}");
        }
    }
    let named = references.map(|reference| Holder::Granted { reference });
    if holders != named || references[0] == references[1] {
        fail!("the granted frames {pfns:?} are held by {holders:?}, expected {named:?}");
    }
    for pfn in pfns {
        let holder = machine.linear.holder(pfn, machine.p2m.mfn(pfn));
        if holder != Holder::Unknown {
            fail!("after its grant has ended, pfn {pfn} {holder}");
        }
    }
    let again = granted(machine, pfns[0])?;
    let reference = again.reference();
    if let Err((_, error)) = again.end(machine) {
        core::mem::forget(run);
        fail!("ending a grant: {error}");
    }
    if reference != references[0] {
        fail!("reference {} is not free after its grant has ended", references[0]);
    }
    say!("# grant-ended: references {references:?} are free again");
    Ok(())
}

fn granted(machine: &Machine, pfn: Pfn) -> Result<Grant, TestOutcome> {
    // SAFETY: the caller owns the frame ([M1](xen_contig::rules#M1)) until the grant has ended, and
    // no reference to it exists.
    match unsafe { Grant::new(machine, pfn, DomId(0)) } {
        Ok(grant) => Ok(grant),
        Err(error) => fail!("granting pfn {pfn}: {error}"),
    }
}
