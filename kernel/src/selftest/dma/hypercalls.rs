//! How many hypercalls does an order need, cold and warm?

use alloc::format;
use alloc::vec::Vec;

use xen_contig::addr::{MachineAddr, Order};
use xen_contig::dma::{Constraints, Retain};

use super::helpers::{
    Allocator, ConfinedGuest, PAGE, balanced, build, calls, extent_limit, is_sound, served,
};
use super::{Check, Test, TestContext, TestOutcome, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::trace;

/// The maximum number of hypercalls for an order up to 9, cold.
const MOST: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-hypercalls", hypercalls));
}

fn hypercalls(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let limit = extent_limit(machine);
    let mut counted = 0;
    for order in [0, 4, 9, 12].into_iter().filter_map(|order| Order::new(order).ok()) {
        trace::print_if_filling();
        if order > limit {
            say!("# dma-hypercalls: order {order} is above the limit {limit}");
            continue;
        }
        let mut figures = None;
        let counting = balanced(context, Retain::default(), |allocator| {
            figures = count(machine, allocator, order)?;
            Ok(())
        });
        match counting {
            Ok(()) => {}
            Err(TestOutcome::Skip(why)) => {
                say!("# dma-hypercalls: order {order} skipped: {why}");
                continue;
            }
            Err(other) => return Err(other),
        }
        let Some((cold, warm)) = figures else { continue };
        say!(
            "# dma-hypercalls: order {order}: {cold} hypercalls for the first buffer, {warm} for the next"
        );
        counted += 1;
        let most = if machine.exchanger().is_none() {
            0
        } else if order.get() <= 9 {
            MOST
        } else {
            // Each page table needs a call, to detach and to attach.
            MOST + 2 * (order.frames() / 512 - 1)
        };
        if cold > most || warm > 0 {
            fail!(
                "order {order}: {cold} hypercalls cold and {warm} warm; at most {most} and 0 are \
                 allowed"
            );
        }
        if machine.exchanger().is_some() && cold == 0 {
            fail!("order {order} was served without a hypercall, so it was not cold");
        }
    }
    if counted == 0 {
        skip!("guest or Xen has no memory for any order");
    }
    Ok(())
}

/// Returns the hypercalls of a first and a second allocation in a confined guest.
fn count(
    machine: &Machine,
    allocator: &Allocator<'_>,
    order: Order,
) -> Result<Option<(u64, u64)>, TestOutcome> {
    // The lists need frames too, and lie in front of the aligned run.
    let confined = ConfinedGuest::to(machine, order.frames() + order.frames().min(512))?;
    let constraints = match order {
        Order::ZERO => out_of_reach(machine)?,
        _ => Constraints::default(),
    };
    let size = order.frames() * PAGE;
    let allocate = || {
        let before = calls();
        let result = allocator.alloc_coherent(size, &constraints);
        let made = calls() - before;
        let buffer = served(result, "dma-hypercalls", &format!("order {order}"))?;
        if let Some(buffer) = &buffer {
            is_sound(machine, buffer, size, &constraints)?;
        }
        let before = calls();
        let given = buffer.is_some();
        drop(buffer);
        if calls() != before {
            fail!("a drop made {} hypercalls", calls() - before);
        }
        Ok(given.then_some(made))
    };
    let (cold, warm) = (allocate()?, allocate()?);
    confined.check_whole(allocator)?;
    Ok(cold.zip(warm))
}

/// Returns constraints that no free frame meets, so that even a single frame must be exchanged. A
/// PVH guest does not exchange, so it gets no constraints.
fn out_of_reach(machine: &Machine) -> Result<Constraints, TestOutcome> {
    let free = super::helpers::HeldFrames::all(machine);
    let lowest =
        free.runs().iter().flat_map(|run| run.iter()).filter_map(|pfn| machine.p2m.mfn(pfn)).min();
    match lowest {
        None => Ok(Constraints::default()),
        Some(mfn) => {
            let bits = MachineAddr::of(mfn).get().max(1).ilog2();
            build(|it| it.mask((1 << bits) - 1))
        }
    }
}
