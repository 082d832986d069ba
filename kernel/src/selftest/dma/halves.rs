//! Do the halves of a buffer keep contents and addresses, and is each freed?

use alloc::vec::Vec;

use xen_contig::dma::Retain;

use super::helpers::{ConfinedGuest, PAGE, balanced, build, fill, holds, is_sound, served};
use super::{Check, Test, TestContext, fail, skip};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-halves", halves).needs_exchange_order(2));
}

fn halves(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let constraints = build(|it| it.max_segment(4 * PAGE).max_segments(4))?;
    let size = 13 * PAGE + 10;
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 64)?;
        for at in [PAGE, 4 * PAGE, 5 * PAGE, 13 * PAGE] {
            let result = allocator.alloc_coherent(size, &constraints);
            let Some(mut buffer) = served(result, "dma-halves", "13 pages and 10 bytes")? else {
                skip!("guest or Xen has no memory for {size} bytes")
            };
            fill(&mut buffer, seed, 0)?;
            let address = buffer.dma_addr_at(at);
            if let Ok(rest) = buffer.split_off(at + 1) {
                fail!("expected a split within a page to be refused, got {rest:?}");
            }
            let right = match buffer.split_off(at) {
                Ok(rest) => rest,
                Err(error) => fail!("splitting at byte {at}: {error}"),
            };
            let left = buffer;
            if Some(right.dma_addr()) != address {
                fail!("byte {at} was at {address:?}, but the second half is {right:?}");
            }
            is_sound(machine, &left, at, &constraints)?;
            is_sound(machine, &right, size - at, &constraints)?;
            holds(&left, seed, 0)?;
            drop(left);
            holds(&right, seed, at)?;
        }
        confined.check_whole(allocator)
    })
}
