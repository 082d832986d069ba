//! What does a 2 MiB buffer cost that has to be exchanged, from the call of a driver to the return?
//!
//! Ticks are of the TSC: instructions, Xen's included, where QEMU counts them. Only asked for by
//! name: elsewhere they say nothing.

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

/// 2 MiB: the largest extent of a plain domU.
const ORDER: u32 = 9;

/// Width of the device's addresses. Of a machine with 4 GiB or less, Xen has memory below.
const BITS: u32 = 30;

/// How often it is done: each time the memory that was found first has gone back.
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
            // In each: what went back came from anywhere and may happen to fit.
            one(machine, allocator, round)?;
        }
        Ok(())
    })
}

fn one(machine: &Machine, allocator: &Allocator<'_>, round: u32) -> Check {
    let Ok(order) = Order::new(ORDER) else { fail!("{ORDER} is no order") };
    let constraints = build(|it| it.mask((1 << BITS) - 1))?;
    let size = order.frames() * PAGE;
    // The lists take frames, too.
    let confined = ConfinedGuest::to(machine, 2 * order.frames())?;
    let (start, before) = (tsc(), calls());
    let result = allocator.alloc_coherent(size, &constraints);
    let (allocation, asked) = (tsc() - start, calls() - before);
    let Some(buffer) = served(result, "bench-coherent", "2 MiB")? else {
        skip!("there is no memory for it")
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
