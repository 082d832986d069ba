//! Is the order above the limit refused with an error that names it?

use alloc::vec::Vec;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::Order;
use xen_contig::exchange::{Capability, ExchangeError, ExchangeFailure};

use super::owned::{OwnedExtent, OwnedRun};
use super::{Check, Test, TestContext, fail, frame_checks};
use crate::extent::WholeRunExchanger;
use crate::machine::{ANYWHERE, Machine};
use crate::vcpu::xen;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("order-limit-refused", refused));
}

fn refused(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let limit = match machine.capability {
        Capability::Exchange { limit } | Capability::Refill { limit } => limit,
        Capability::None { why } => fail!("{why}"),
    };
    // This asks Xen itself, which answers for any order and on any kind of guest.
    match ask(limit.get() + 1) {
        Err(XenErrno::EPERM) => {}
        other => fail!(
            "expected EPERM for order {}, which is one above the limit; Xen answered {other:?}",
            limit.get() + 1
        ),
    }
    match (machine.exchanger_up_to(Order::MAX), limit.next()) {
        (Some(exchanger), Some(above)) => is_refused_by_xen(machine, &exchanger, above),
        // The library has no orders above 18, so it cannot request one.
        _ => Ok(()),
    }
}

/// Bypasses the library's own check, so that Xen refuses the order, and checks that the run
/// remains.
fn is_refused_by_xen<L: xen_contig::paging::LinearMapping>(
    machine: &Machine,
    exchanger: &WholeRunExchanger<'_, impl Xen, L>,
    above: Order,
) -> Check {
    let run = machine.take(above.frames()).map(|run| OwnedRun::of(machine, run));
    let (Some(run), Some(mut lists)) = (run, machine.lists(above.frames())) else {
        // Xen's refusal was seen. The guest is too small for the rest of the test.
        return Ok(());
    };
    let run = run.into_run();
    let failure = match exchanger.acquire(run, ANYWHERE, lists.words()) {
        Ok(extent) => {
            let extent = OwnedExtent::of(machine, extent);
            fail!("Xen refused order {above} before and permits it now: {:?}", *extent)
        }
        Err(failure) => failure,
    };
    let ExchangeFailure { error, remaining } = failure;
    let agreed = match remaining.whole() {
        Ok(run) => frame_checks::agree(machine, &OwnedRun::of(machine, run), |_| None),
        Err(remaining) => {
            let lost = remaining.lost();
            remaining.into_iter().for_each(|run| machine.give(run));
            fail!("{lost} frames of the run are lost: {error}")
        }
    };
    match error {
        ExchangeError::OrderNotPermitted { order } if order == above => agreed,
        error => fail!("expected the error that order {above} is not permitted, got: {error}"),
    }
}

/// Asks Xen for one extent of `order` with counts that Xen refuses, so that no frame moves.
fn ask(order: u32) -> Result<u64, XenErrno> {
    let empty = MemoryReservation {
        extent_start: core::ptr::null_mut(),
        nr_extents: 0,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let output = MemoryReservation { extent_order: order, ..empty };
    let mut question = MemoryExchange { input: empty, output, nr_exchanged: 1 };
    // SAFETY: the lists are empty, so Xen reads no list and moves no frame.
    unsafe { xen().memory_op(MemoryOp::Exchange(&mut question)) }
}
