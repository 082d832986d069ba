//! Does every refusal return its own error, with no frame lost?

use alloc::vec::Vec;

use xen_contig::addr::Order;
use xen_contig::dma::{AllocError, ConstraintError, Constraints, Retain, Sleep};
use xen_contig::exchange::{Capability, ExchangeError, Node};

use super::helpers::{
    Allocator, ConfinedGuest, HeldFrames, PAGE, balanced, build, calls, extent_limit, is_shortage,
    is_sound,
};
use super::{Check, Test, TestContext, fail, skip};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-refused-before-xen", before_xen).needs_exchange_order(4));
    tests.push(Test::new("dma-refused-order", order_above_limit));
    tests.push(Test::new("dma-refused-by-xen", by_xen).needs_exchange_order(1));
    tests.push(Test::new("dma-refused-node", node).needs_exchange_order(1));
    tests.push(Test::new("dma-refused-guest-full", guest_full).needs_exchange_order(4));
}

fn refused(
    allocator: &Allocator<'_>,
    size: u64,
    constraints: &Constraints,
    expected: AllocError,
) -> Check {
    match allocator.alloc_coherent(size, constraints) {
        Err(error) if error == expected => Ok(()),
        other => fail!("{size} bytes: expected `{expected}`, got {other:?}"),
    }
}

/// Checks the errors that need no hypercall.
fn before_xen(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 64)?;
        let before = calls();
        let any = Constraints::default();
        refused(allocator, 0, &any, AllocError::ZeroSize)?;
        let max = Order::MAX.bytes();
        refused(allocator, max + 1, &any, AllocError::TooLarge { size: max + 1, max })?;
        let short = build(|it| it.max_segment(PAGE))?;
        let error = AllocError::SegmentTooLong { size: PAGE + 1, max_segment: PAGE };
        refused(allocator, PAGE + 1, &short, error)?;
        let few = build(|it| it.max_segment(PAGE).max_segments(2))?;
        let error = AllocError::TooManySegments { needed: 3, allowed: 2, segment: PAGE };
        refused(allocator, 3 * PAGE, &few, error)?;
        match Constraints::builder().mask(PAGE - 1).build() {
            Err(error @ ConstraintError::MaskTooNarrow { mask }) if mask == PAGE - 1 => {
                let _told = AllocError::from(error);
            }
            other => fail!("expected a mask without a whole page to be refused, got {other:?}"),
        }
        if machine.exchanger().is_some() {
            let boundary = build(|it| it.boundary(PAGE))?;
            let error = AllocError::CrossesBoundary { size: PAGE + 1, boundary: PAGE };
            refused(allocator, PAGE + 1, &boundary, error)?;
            let awake = build(|it| it.sleep(Sleep::MustNot))?;
            refused(allocator, 16 * PAGE, &awake, AllocError::MustNotSleep)?;
        }
        if calls() != before {
            fail!("{} hypercalls for errors that need none", calls() - before);
        }
        confined.check_whole(allocator)
    })
}

fn order_above_limit(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Capability::Exchange { limit } = machine.capability else {
        skip!("this domain does not exchange")
    };
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 64)?;
        let (size, any) = (2 * limit.bytes(), Constraints::default());
        let error = match limit.next() {
            Some(order) => AllocError::OrderNotPermitted { order, limit },
            None => AllocError::TooLarge { size, max: limit.bytes() },
        };
        refused(allocator, size, &any, error)?;
        refused(
            allocator,
            limit.bytes() + 1,
            &any,
            match error {
                AllocError::TooLarge { max, .. } => AllocError::TooLarge { size: max + 1, max },
                other => other,
            },
        )?;
        confined.check_whole(allocator)
    })
}

/// Checks that the error for memory that Xen does not have names the order and the limit.
fn by_xen(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("this domain does not exchange");
    }
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 1024)?;
        // Frame 0 is never in use, so Xen has no extent that begins there.
        let order = extent_limit(machine).get().min(8);
        let (size, bits) = (PAGE << order, 12 + order);
        for (size, mask, order, bits) in [
            // Frames 0 and 1. Frame 1 belongs to the BIOS and to Xen.
            (1, 0x1fff, 0, 13),
            // The first extent.
            (size, size - 1, order, bits),
            // The same range with a mask that lies between two powers of two, which are what Xen
            // accepts.
            (size, size + size / 2 - 1, order, bits),
        ] {
            let constraints = build(|it| it.mask(mask))?;
            let error = match allocator.alloc_coherent(size, &constraints) {
                Err(AllocError::Exchange(error)) => error,
                other => {
                    fail!("expected {size} bytes below {mask:#x} to be refused, got {other:?}")
                }
            };
            // Xen may or may not have a single frame there. This test accepts both answers.
            match error {
                ExchangeError::NoMemory { order: which, bits: limit, .. }
                    if which.get() == order && limit.get() >= bits => {}
                ExchangeError::NoMemoryBelow { bits: limit, .. } if limit.get() >= bits => {}
                error => {
                    fail!("{size} bytes below {mask:#x} were refused with the wrong error: {error}")
                }
            }
        }
        let lowest = 1 << 50;
        let beyond = AllocError::OutOfReach { lowest, mask: u64::MAX };
        refused(allocator, PAGE, &build(|it| it.lowest(lowest))?, beyond)?;
        confined.check_whole(allocator)
    })
}

/// Checks that only the control domain, if it is a PV guest, may demand an exact node.
fn node(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let exact = |node| build(|it| it.node(Node::Exactly(node)));
    if machine.exchanger().is_none() {
        let unknown = AllocError::NodeUnknown { node: 0 };
        return balanced(context, Retain::NOTHING, |it| refused(it, 1, &exact(0)?, unknown));
    }
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(machine, 64)?;
        // No configuration of the bed has a hundred nodes.
        let error = |node| AllocError::from(ExchangeError::NodeNotPermitted { node });
        refused(allocator, 2 * PAGE, &exact(100)?, error(100))?;
        if machine.initial_domain {
            // Xen supports 64 nodes, but no configuration of the bed has node 63.
            match allocator.alloc_coherent(2 * PAGE, &exact(63)?) {
                Err(AllocError::NoMemoryOnNode { node: 63, .. }) => {}
                Err(other) if other == error(63) => {}
                other => fail!("expected node 63 to be refused, got {other:?}"),
            }
            let (size, constraints) = (2 * PAGE, exact(0)?);
            match allocator.alloc_coherent(size, &constraints) {
                Ok(buffer) => is_sound(machine, &buffer, size, &constraints)?,
                Err(error) if is_shortage(&error) => skip!("{error}"),
                Err(error) => fail!("the control domain may demand node 0, but: {error}"),
            }
        } else {
            refused(allocator, 2 * PAGE, &exact(0)?, error(0))?;
        }
        confined.check_whole(allocator)
    })
}

/// Checks a guest without free frames, and a guest without a long enough run of them.
fn guest_full(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("this domain does not exchange; see dma-no-frames-in-reach");
    }
    let no_memory = |frames| AllocError::NoGuestMemory { frames, in_transactions: 0 };
    balanced(context, Retain::NOTHING, |allocator| {
        let any = Constraints::default();
        let confined = ConfinedGuest::to(machine, 8)?;
        refused(allocator, 16 * PAGE, &any, no_memory(16))?;
        {
            let _all = HeldFrames::all(machine);
            refused(allocator, 1, &any, no_memory(1))?;
        }
        confined.check_whole(allocator)
    })
}
