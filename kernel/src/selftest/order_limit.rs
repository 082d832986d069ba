//! Is one order more than Xen permits refused, and told so?

use alloc::vec::Vec;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};
use xen_contig::addr::Order;
use xen_contig::exchange::{Capability, ExchangeError, ExchangeFailure};

use super::owned::Owned;
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
    // Xen's own word, for any order and on any kind of guest.
    match ask(limit.get() + 1) {
        Err(XenErrno::EPERM) => {}
        other => fail!("order {} is one above the limit, Xen answered {other:?}", limit.get() + 1),
    }
    match (machine.exchanger_up_to(Order::MAX), limit.next()) {
        (Some(exchanger), Some(above)) => told(machine, &exchanger, above),
        // The component has no orders above 18, so it can't be asked for one.
        _ => Ok(()),
    }
}

/// Goes past the component's own check to Xen's, and sees the run come back.
fn told<L: xen_contig::paging::LinearMapping>(
    machine: &Machine,
    exchanger: &WholeRunExchanger<'_, impl Xen, L>,
    above: Order,
) -> Check {
    let run = machine.take(above.frames()).map(|run| Owned::of(machine, run));
    let (Some(run), Some(mut lists)) = (run, machine.lists(above.frames())) else {
        // Xen's refusal was seen; the guest is too small to see the way back as well.
        return Ok(());
    };
    let run = run.into_run();
    let failure = match exchanger.acquire(run, ANYWHERE, lists.words()) {
        Ok(extent) => fail!("order {above} was refused before and is granted now: {extent:?}"),
        Err(failure) => failure,
    };
    let ExchangeFailure { error, remaining } = failure;
    let agreed = match remaining.whole() {
        Ok(run) => frame_checks::agree(machine, &Owned::of(machine, run), |_| None),
        Err(remaining) => {
            let lost = remaining.lost();
            remaining.into_iter().for_each(|run| machine.give(run));
            fail!("{lost} frames of the run are lost: {error}")
        }
    };
    match error {
        ExchangeError::OrderNotPermitted { order } if order == above => agreed,
        error => fail!("expected to hear that order {above} is not permitted, heard: {error}"),
    }
}

/// Asks Xen for one extent of `order` with counts that it will not accept, so that nothing moves.
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
    // SAFETY: there are no extents, so no list is read and no frame moves.
    unsafe { xen().memory_op(MemoryOp::Exchange(&mut question)) }
}
