//! Is a set of buffers allocated completely or not at all?

use alloc::vec::Vec;

use xen_contig::dma::{AllocError, Constraints, Request, Retain};

use super::helpers::{
    ConfinedGuest, PAGE, balanced, build, calls, fill, holds, is_shortage, is_sound, is_zero,
};
use super::{Check, Test, TestContext, fail, skip};
use crate::say;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-many", many).needs_exchange_order(4));
    tests.push(Test::new("dma-many-all-or-nothing", all_or_nothing).needs_exchange_order(4));
}

/// Returns the requests of a network driver: rings, descriptors and a doorbell page.
fn requests(constraints: Constraints) -> [Request; 5] {
    [16 * PAGE, 2 * PAGE + 1, 8 * PAGE, 13 * PAGE, PAGE]
        .map(|size| Request::new(size).within(&constraints))
}

fn many(context: &TestContext<'_>) -> Check {
    let (machine, seed) = (context.machine, context.seed);
    let any = Constraints::default();
    let requests = requests(any);
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 256)?;
        let before = calls();
        let result = allocator.alloc_many(&requests);
        let made = calls() - before;
        let mut buffers = match result {
            Ok(buffers) => buffers,
            Err((_, error)) if is_shortage(&error) => skip!("{error}"),
            Err((at, error)) => fail!("request {at}: {error}"),
        };
        say!("# dma-many: {} buffers with {made} hypercalls", buffers.len());
        // The limit is for orders 4, 3 and 2: clearing, flush, an exchange for each, mapping.
        if made > 8 {
            fail!("{} buffers needed {made} hypercalls, expected at most 8", buffers.len());
        }
        for (number, (buffer, request)) in (0..).zip(buffers.iter_mut().zip(&requests)) {
            is_sound(machine, buffer, request.size(), &any)?;
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

/// Checks that no buffer is allocated if one request cannot be met, and that the error names this
/// request.
fn all_or_nothing(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let any = Constraints::default();
    let page = build(|it| it.max_segment(PAGE))?;
    for at in 0..5 {
        let mut requests = requests(any);
        requests[at] = Request::new(PAGE + 1).within(&page);
        balanced(context, Retain::NOTHING, |allocator| {
            let confined = ConfinedGuest::to(machine, 256)?;
            match allocator.alloc_many(&requests) {
                Ok(buffers) => fail!("expected request {at} to be refused, got {buffers:?}"),
                // An earlier request may fail for lack of memory.
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
                        fail!(
                            "expected request {at} to be refused for its segments, but request \
                             {index} failed: {error}"
                        );
                    }
                }
            }
            confined.check_whole(allocator)
        })?;
    }
    Ok(())
}
