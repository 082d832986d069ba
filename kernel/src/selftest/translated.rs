//! Does Xen refuse the exchange to a translated guest, and does the refill work there?

use alloc::format;
use alloc::vec::Vec;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::Order;
use xen_contig::exchange::{Capability, ExchangeError, ExchangeFailure};

use super::reservation::can_refill;
use super::{Check, Test, TestContext, fail, frame_checks, skip};
use crate::command_line::When;
use crate::machine::ANYWHERE;
use crate::machine::Machine;
use crate::vcpu::xen;

/// The order of a superpage, which is the purpose of a refill.
///
/// Higher orders are slow. With an IOMMU, each frame that a dom0 returns to Xen needs a flush.
const SUPERPAGE: Order = match Order::new(9) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

pub fn add(machine: &Machine, tests: &mut Vec<Test>) {
    tests.push(Test::new("exchange-refused-to-translated", exchange_refused));
    let Capability::Refill { limit } = machine.capability else { return };
    for order in limit.up_to() {
        let name = format!("refill-order-{order}");
        let when = if order <= SUPERPAGE { When::Always } else { When::Asked };
        tests.push(Test::new(name, move |context| refill(context, order)).when(when));
    }
    if limit > SUPERPAGE {
        tests.push(Test::new("refill-above-superpage", move |_| {
            skip!("selftest=refill-order-* tests the orders up to {limit}")
        }));
    }
}

/// Checks that Xen refuses to exchange a frame, and leaves the frame as it was.
fn exchange_refused(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if !machine.p2m.is_translated() {
        skip!("PV guest: Xen exchanges its memory");
    }
    let Some(run) = machine.take(1) else { skip!("the guest has no free frame") };
    frame_checks::dirty(&run, context.seed);
    let (mut input, mut output) = ([run.first().number()], [run.first().number()]);
    let one = |list: &mut [u64; 1]| MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: 1,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let mut exchange =
        MemoryExchange { input: one(&mut input), output: one(&mut output), nr_exchanged: 0 };
    // SAFETY: the lists live across the call ([M3](xen_contig::rules#M3)). `run` owns the frame
    // ([M1](xen_contig::rules#M1)), which is unused during the call.
    let answer = unsafe { xen().memory_op(MemoryOp::Exchange(&mut exchange)) };
    let kept = frame_checks::holds_pattern(&run, context.seed, "the frame after the refusal");
    machine.give(run);
    match answer {
        Err(XenErrno::EOPNOTSUPP) => kept,
        other => fail!("expected EOPNOTSUPP, Xen answered {other:?}"),
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
