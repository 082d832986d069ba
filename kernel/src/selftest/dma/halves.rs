//! Do the halves of a buffer keep content and addresses, and go back each?

use alloc::vec::Vec;

use xen_contig::dma::Retain;

use super::ground::{Confined, PAGE, balanced, build, fill, holds, is_sound, served};
use super::{Check, Test, TestContext, fail, skip};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-halves", halves).needs_exchange_order(2));
}

fn halves(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let constraints = build(|it| it.max_segment(4 * PAGE).max_segments(4))?;
    let size = 13 * PAGE + 10;
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = Confined::to(machine, 64)?;
        for at in [PAGE, 4 * PAGE, 5 * PAGE, 13 * PAGE] {
            let result = allocator.alloc_coherent(size, &constraints);
            let Some(mut buffer) = served(result, "dma-halves", "13 pages and 10 bytes")? else {
                skip!("there is no memory for {size} bytes")
            };
            fill(&mut buffer, seed, 0)?;
            let address = buffer.dma_addr_at(at);
            if let Ok(rest) = buffer.split_off(at + 1) {
                fail!("split amid a page: {rest:?}");
            }
            let right = match buffer.split_off(at) {
                Ok(rest) => rest,
                Err(error) => fail!("{error}"),
            };
            let left = buffer;
            if Some(right.dma_addr()) != address {
                fail!("byte {at} was at {address:?}, the half behind it is {right:?}");
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
