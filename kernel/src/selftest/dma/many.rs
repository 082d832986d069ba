//! Is a set of buffers had all or not at all, and with one flush?

use alloc::vec::Vec;

use xen_contig::dma::{AllocError, Constraints, Request, Retain};

use super::ground::{
    Confined, PAGE, balanced, build, calls, fill, holds, is_shortage, is_sound, is_zero,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::say;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-many", many).needs_exchange_order(4));
    tests.push(Test::new("dma-many-all-or-nothing", all_or_nothing).needs_exchange_order(4));
}

/// A network driver: rings, descriptors, a doorbell page.
fn requests(constraints: Constraints) -> [Request; 5] {
    [16 * PAGE, 2 * PAGE + 1, 8 * PAGE, 13 * PAGE, PAGE].map(|size| Request { size, constraints })
}

fn many(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let any = Constraints::default();
    let requests = requests(any);
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = Confined::to(machine, 256)?;
        let before = calls();
        let result = allocator.alloc_many(&requests);
        let made = calls() - before;
        let mut buffers = match result {
            Ok(buffers) => buffers,
            Err((_, error)) if is_shortage(&error) => skip!("{error}"),
            Err((at, error)) => fail!("request {at}: {error}"),
        };
        say!("# dma-many: {} buffers with {made} hypercalls", buffers.len());
        // Orders 4, 3, 2: zap, flush, an exchange for each, map.
        if made > 8 {
            fail!("{} buffers took {made} hypercalls", buffers.len());
        }
        for (number, (buffer, request)) in (0..).zip(buffers.iter_mut().zip(&requests)) {
            is_sound(machine, buffer, request.size, &any)?;
            is_zero(buffer)?;
            fill(buffer, seed ^ number, 0)?;
        }
        for (number, buffer) in (0..).zip(&buffers) {
            holds(buffer, seed ^ number, 0)?;
        }
        drop(buffers);
        confined.check_whole(allocator)
    })
}

/// One of the set can't be had: none is, and the error says which and why.
fn all_or_nothing(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let any = Constraints::default();
    let page = build(|it| it.max_segment(PAGE))?;
    for at in 0..5 {
        let mut requests = requests(any);
        requests[at] = Request { size: PAGE + 1, constraints: page };
        balanced(context, Retain::NOTHING, |allocator| {
            let confined = Confined::to(machine, 256)?;
            match allocator.alloc_many(&requests) {
                Ok(buffers) => fail!("request {at} can't be met, but: {buffers:?}"),
                // Those before it may be had or not; it is the one of which that is known.
                Err((index, error)) if is_shortage(&error) && index != at => {}
                Err((index, error)) => {
                    let told = match machine.exchanger() {
                        _ if index != at => false,
                        Some(_) => matches!(
                            error,
                            AllocError::SegmentTooLong { size, max_segment }
                                if size == PAGE + 1 && max_segment == PAGE
                        ),
                        None => matches!(error, AllocError::SegmentTooLong { .. }),
                    };
                    if !told {
                        fail!("request {at} can't be met, but request {index} failed: {error}");
                    }
                }
            }
            confined.check_whole(allocator)
        })?;
    }
    Ok(())
}
