//! Is an extent of each order contiguous, zeroed and in all tables, and can it be released?

use alloc::format;
use alloc::vec::Vec;

use xen_contig::addr::Order;
use xen_contig::exchange::Capability;

use super::conformance::returned::ReturnedFrames;
use super::owned::{OwnedRun, free_remaining, refused};
use super::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::command_line::When;
use crate::extent::ExtentRun;
use crate::machine::ANYWHERE;
use crate::machine::Machine;

pub fn add(machine: &Machine, tests: &mut Vec<Test>) {
    for order in Order::MAX.up_to() {
        let when = match machine.capability {
            Capability::Exchange { limit } if order <= limit => When::Always,
            _ => When::Asked,
        };
        let name = format!("exchange-order-{order}");
        let test = Test::new(name, move |context| exchange(context, order));
        tests.push(test.when(when).needs_order(order.get()));
    }
}

fn exchange(context: &TestContext<'_>, order: Order) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let Some(exchanger) = machine.exchanger() else {
        skip!("this guest does not exchange: {}", machine.capability)
    };
    let frames = order.frames();
    // The reasons have no figures, so that the runner lists all orders in one line.
    let Some(run) = machine.take(frames) else {
        skip!("the guest has no run of free frames for an extent of this order")
    };
    let run = OwnedRun::of(machine, run);
    let Some(mut lists) = machine.lists(2 * frames) else {
        skip!("the guest has no free memory for the lists of an exchange of this order")
    };
    frame_checks::dirty(&run, seed);
    // Without this, Xen may hand out frames that it has zeroed, which hides whether the library
    // zeroes them. The higher orders take the same way through the library.
    let _dirty = ReturnedFrames::extent(context, order.get())?;
    let extent = match exchanger.acquire(run.into_run(), ANYWHERE, lists.words()) {
        Ok(extent) => extent,
        Err(failure) => return Err(refused(machine, "the exchange failed", failure)),
    };
    let checked = check(machine, &extent, order, seed);
    match exchanger.release(extent, lists.words()) {
        Ok(run) => {
            let run = OwnedRun::of(machine, run);
            checked?;
            frame_checks::agree(machine, &run, |_| None)?;
            frame_checks::is_zero(&run, "frames after the release")
        }
        Err(failure) => {
            let error = free_remaining(machine, failure);
            checked?;
            fail!("releasing the extent: {error}")
        }
    }
}

/// Checks an extent, and writes to it.
fn check(machine: &Machine, extent: &ExtentRun, order: Order, seed: u64) -> Check {
    let first = extent.mfn();
    if extent.order() != order || !first.is_aligned(order) {
        fail!(
            "expected an aligned extent of order {order}, got order {} at mfn {first}",
            extent.order()
        );
    }
    frame_checks::agree(machine, extent.run(), |index| Some(first.add(index)))?;
    frame_checks::is_zero(extent.run(), "the new extent")?;
    frame_checks::dirty(extent.run(), !seed);
    frame_checks::holds_pattern(extent.run(), !seed, "the extent after writing")
}
