//! Does Xen exchange memory of a PVH guest, and does the refill work there?

use alloc::format;
use alloc::vec::Vec;

use xen_contig::addr::Order;
use xen_contig::exchange::{Capability, ExchangeError, ExchangeFailure, Permission};

use super::reservation::can_refill;
use super::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::command_line::When;
use crate::machine::ANYWHERE;
use crate::machine::Machine;
use crate::say;

/// The order of a superpage, which is the purpose of a refill.
///
/// Higher orders are slow. With an IOMMU, each frame that a dom0 returns to Xen needs a flush.
const SUPERPAGE: Order = match Order::new(9) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

/// The name of the test that reports whether Xen exchanges memory of a translated guest.
const TRIAL: &str = "exchange-translated-trial";

pub fn add(machine: &Machine, tests: &mut Vec<Test>) {
    tests.push(Test::new(TRIAL, trial));
    let limit = match machine.capability {
        Capability::Refill { limit } => Some(limit),
        _ => None,
    };
    for order in Order::MAX.up_to() {
        let is_short = limit.is_some_and(|limit| order <= limit) && order <= SUPERPAGE;
        let when = if is_short { When::Always } else { When::Asked };
        let name = format!("refill-order-{order}");
        let test = Test::new(name, move |context| refill(context, order));
        tests.push(test.when(when).needs_order(order.get()));
    }
    if let Some(limit) = limit.filter(|limit| *limit > SUPERPAGE) {
        tests.push(Test::new("refill-above-superpage", move |_| {
            skip!("selftest=refill-order-* tests the orders up to {limit}")
        }));
    }
}

/// Refills a frame, and reports whether Xen exchanges memory of this guest, as a trial found.
fn trial(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if !machine.p2m.is_translated() {
        skip!("PV guest: Xen exchanges its memory");
    }
    refill(context, Order::ZERO)?;
    match machine.accounts.translated_exchange() {
        Some(Permission::Denied) => {
            say!(
                "# {TRIAL}: as expected, Xen does not exchange memory of a translated guest \
                 (EOPNOTSUPP). A refill returns frames and populates their places again"
            );
            Ok(())
        }
        Some(Permission::Granted) => {
            say!("# {TRIAL}: Xen exchanges memory of this translated guest, and a refill uses it");
            Ok(())
        }
        Some(Permission::Unknown(answer)) => skip!(
            "unknown whether Xen exchanges memory of this guest: it answered {answer:?} to the \
             trial. A refill returns frames and populates their places again"
        ),
        None => fail!("a refill did not try the exchange"),
    }
}

fn refill(context: &TestContext<'_>, order: Order) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let Some(refiller) = machine.refiller() else {
        skip!("this guest does not refill: {}", machine.capability)
    };
    can_refill()?;
    let frames = order.frames();
    let Some(run) = machine.take(frames) else {
        skip!("the guest has no run of {frames} free frames")
    };
    let Some(mut lists) = machine.lists(frames) else {
        machine.give(run);
        skip!("the guest has no free memory for the list of {frames} frames")
    };
    frame_checks::dirty(&run, seed);
    match refiller.refill(run, ANYWHERE, lists.words()) {
        Ok(run) => {
            let checked = frame_checks::is_zero(&run, "the refilled run").and_then(|()| {
                frame_checks::dirty(&run, !seed);
                frame_checks::holds_pattern(&run, !seed, "the refilled run after writing")
            });
            machine.give(run);
            checked
        }
        Err(failure) => {
            let told = format!("{failure}");
            let ExchangeFailure { error, remaining } = failure;
            let run = match remaining.whole() {
                Ok(run) => run,
                Err(remaining) => {
                    remaining.into_iter().for_each(|run| machine.give(run));
                    fail!("the refill failed: {told}")
                }
            };
            let zero = frame_checks::is_zero(&run, "the run that was populated frame by frame");
            machine.give(run);
            zero?;
            match error {
                ExchangeError::NoMemory { .. } => {
                    skip!("{told}; the run was populated frame by frame")
                }
                _ => fail!("the refill failed: {told}"),
            }
        }
    }
}
