//! What does a 2 MiB buffer cost that must be exchanged, from the call of a driver to the return?
//!
//! A tick is a tick of the TSC. Where QEMU counts instructions it is one instruction, Xen's
//! included. Elsewhere the figures mean nothing, so the test runs only if it is named.

use alloc::vec::Vec;

use xen_contig::addr::Order;
use xen_contig::dma::Retain;

use super::dma::helpers::{
    Allocator, ConfinedGuest, PAGE, balanced, build, calls, is_sound, is_zero, served,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::command_line::When;
use crate::machine::Machine;
use crate::say;
use crate::tsc::tsc;

/// 2 MiB, the largest extent of an ordinary domU.
const ORDER: u32 = 9;

/// The width of the device's addresses. On a machine with 4 GiB or less, Xen has memory below this
/// limit.
const BITS: u32 = 30;

/// The number of rounds. Each round starts after the memory of the round before was returned to
/// Xen.
const ROUNDS: u32 = 4;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("bench-coherent", coherent).when(When::Asked));
}

fn coherent(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("a translated guest does not exchange");
    }
    balanced(context, Retain::NOTHING, |allocator| {
        for round in 1..=ROUNDS {
            // Each round confines the guest again, because returned memory may fit as it is.
            one(machine, allocator, round)?;
        }
        Ok(())
    })
}

fn one(machine: &Machine, allocator: &Allocator<'_>, round: u32) -> Check {
    let Ok(order) = Order::new(ORDER) else { fail!("{ORDER} is not a valid order") };
    let constraints = build(|it| it.mask((1 << BITS) - 1))?;
    let size = order.frames() * PAGE;
    // The lists need frames too.
    let confined = ConfinedGuest::to(machine, 2 * order.frames())?;
    let (start, before) = (tsc(), calls());
    let result = allocator.alloc_coherent(size, &constraints);
    let (allocation, asked) = (tsc() - start, calls() - before);
    let Some(buffer) = served(result, "bench-coherent", "2 MiB")? else {
        skip!("guest or Xen has no memory for the buffer")
    };
    is_sound(machine, &buffer, size, &constraints)?;
    is_zero(&buffer)?;
    let (start, before) = (tsc(), calls());
    drop(buffer);
    allocator.trim_excess();
    let (release, given) = (tsc() - start, calls() - before);
    say!(
        "# bench-coherent: round {round}: {} KiB below 2^{BITS}: allocation {allocation} ticks, \
         {asked} hypercalls; release {release} ticks, {given} hypercalls",
        size >> 10
    );
    // Without an exchange there was nothing to measure.
    if asked == 0 || given == 0 {
        fail!("{asked} hypercalls to allocate, {given} to release");
    }
    confined.check_whole(allocator)
}
