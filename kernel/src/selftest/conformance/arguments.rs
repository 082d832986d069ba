//! [C02](xen_contig::conformance#C02) to [C18](xen_contig::conformance#C18): Xen's checks of the
//! argument itself, before it accepts a frame.

use alloc::format;
use alloc::vec::Vec;

use hypercall::abi::memory::MemoryExchange;
use hypercall::ops::MemoryOp;
use hypercall::{DomId, XenErrno};

use super::raw::{self, NOWHERE, Specimen, extents, is_pv, limit, refuses};
use crate::layout::window;
use crate::say;
use crate::selftest::{Check, Test, TestContext, fail, skip};

/// The number of bits of the command that name the sub-operation. The start extent is above them
/// (`MEMOP_EXTENT_SHIFT`).
const COMMAND_BITS: u32 = 6;

/// `XENMEMF_exact_node_request`.
const EXACT_NODE: u32 = 1 << 17;

/// The shift of the node: `XENMEMF_node(n)` is *n* + 1 at this place.
const NODE: u32 = 8;

/// A node that does not exist in any Xen, because `MAX_NUMNODES` is 64.
const NO_SUCH_NODE: u32 = (199 + 1) << NODE;

/// The first byte of the address space that Xen reserves for itself (`HYPERVISOR_VIRT_START`).
const XENS_OWN: u64 = 0xffff_8000_0000_0000;

const ONE: (u64, u32) = (1, 0);

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c02-order-above-limit", order_above_limit));
    tests.push(Test::new("c03-limit-by-asking", limit_by_asking));
    tests.push(Test::new("c05-count-above-extents", count_above_extents));
    tests.push(Test::new("c06-domids-differ", domids_differ));
    tests.push(Test::new("c07-size-overflows", size_overflows).needs_order(1));
    tests.push(Test::new("c08-sizes-differ", sizes_differ).needs_order(2));
    tests.push(Test::new("c09-nothing-to-do", nothing_to_do));
    tests.push(Test::new("c10-list-of-xens", list_of_xens));
    tests.push(Test::new("c12-node-refused", node_refused));
    tests.push(Test::new("c13-node-as-a-hint", node_as_a_hint));
    tests.push(Test::new("c15-unknown-domain", unknown_domain));
    tests.push(Test::new("c16-domain-without-rights", domain_without_rights));
    tests.push(Test::new("c17-start-extent-in-command", start_extent));
    tests.push(Test::new("c18-count-within-a-chunk", count_within_a_chunk).needs_order(2));
}

fn order_above_limit(context: &TestContext<'_>) -> Check {
    let above = limit(context)? + 1;
    // The sizes differ too, and the count is invalid, because Xen checks the order before both.
    // SAFETY: Xen refuses the argument before it reads a list.
    unsafe {
        refuses(context, ONE, "out-order", XenErrno::EPERM, |x| x.output.extent_order = above)?;
        refuses(context, ONE, "in-order", XenErrno::EPERM, |x| x.input.extent_order = above)?;
        refuses(context, ONE, "first of all", XenErrno::EPERM, |x| {
            x.output.extent_order = above;
            x.nr_exchanged = 7;
            x.output.domid = DomId(0);
        })
    }
}

fn limit_by_asking(context: &TestContext<'_>) -> Check {
    let found = limit(context)?;
    for order in 0..=40 {
        let (mut none, mut nowhere) = ([], []);
        let mut question = MemoryExchange {
            input: extents(&mut none, 0),
            output: extents(&mut nowhere, order),
            nr_exchanged: 1,
        };
        // SAFETY: the lists are empty, so Xen reads and takes nothing.
        let answer = unsafe { raw::exchange(&mut question) };
        let expected = if order <= found { XenErrno::EINVAL } else { XenErrno::EPERM };
        if answer != Err(expected) || question.nr_exchanged != 1 {
            fail!(
                "order {order} under limit {found}: expected {expected}, Xen answered {answer:?}"
            );
        }
    }
    say!("# c03: the limit of this domain is order {found}");
    match (context.machine.initial_domain, found) {
        (true, 18) | (false, 9 | 12) => Ok(()),
        // `memop-max-order=` sets any other limit.
        _ => skip!("the limit is {found}, which memop-max-order= has set"),
    }
}

fn count_above_extents(context: &TestContext<'_>) -> Check {
    // SAFETY: Xen refuses the argument before it reads a list.
    unsafe {
        refuses(context, ONE, "one above", XenErrno::EINVAL, |x| x.nr_exchanged = 2)?;
        refuses(context, ONE, "far above", XenErrno::EINVAL, |x| x.nr_exchanged = u64::MAX)
    }
}

fn domids_differ(context: &TestContext<'_>) -> Check {
    // A domain does not know its own number, so several possible numbers are tried.
    for id in [0, 1, 2, 3, 0x7fef] {
        let what = format!("in self, out {id}");
        // SAFETY: Xen refuses the argument before it reads a list.
        unsafe {
            refuses(context, ONE, &what, XenErrno::EINVAL, |x| x.output.domid = DomId(id))?;
        }
    }
    Ok(())
}

fn size_overflows(context: &TestContext<'_>) -> Check {
    let order = limit(context)?;
    // SAFETY: Xen refuses the argument before it reads a list.
    unsafe {
        refuses(context, ONE, "in", XenErrno::EINVAL, |x| {
            (x.input.nr_extents, x.input.extent_order) = (1 << (64 - order), order);
        })?;
        refuses(context, ONE, "out", XenErrno::EINVAL, |x| {
            (x.output.nr_extents, x.output.extent_order) = (1 << (64 - order), order);
        })?;
        // Shifted out of 64 bits, both sizes would be 0 and equal.
        refuses(context, ONE, "both", XenErrno::EINVAL, |x| {
            (x.input.nr_extents, x.input.extent_order) = (1 << (64 - order), order);
            (x.output.nr_extents, x.output.extent_order) = (1 << (64 - order), order);
        })
    }
}

fn sizes_differ(context: &TestContext<'_>) -> Check {
    // SAFETY: Xen refuses the argument before it reads a list.
    unsafe {
        refuses(context, ONE, "orders", XenErrno::EINVAL, |x| x.output.extent_order = 1)?;
        refuses(context, ONE, "counts", XenErrno::EINVAL, |x| x.output.nr_extents = 2)?;
        refuses(context, ONE, "none out", XenErrno::EINVAL, |x| x.output.nr_extents = 0)
    }
}

fn nothing_to_do(context: &TestContext<'_>) -> Check {
    let succeeds = |what: &str, done: u64, oddity: &dyn Fn(&mut MemoryExchange)| -> Check {
        let specimen = Specimen::take(context, 1)?;
        // SAFETY: by the count everything is done, so Xen reads no list.
        let attempt = unsafe { specimen.attempt(0, 0, oddity) };
        specimen.put_back()?;
        attempt.succeeded(what, done)
    };
    succeeds("no extents", 0, &|x| (x.input.nr_extents, x.output.nr_extents) = (0, 0))?;
    succeeds("all done before", 1, &|x| x.nr_exchanged = 1)?;
    // Xen returns so early that it does not check the domains or the addresses of the lists.
    succeeds("all done, nonsense else", 1, &|x| {
        x.nr_exchanged = 1;
        (x.input.domid, x.output.domid) = (DomId(0x7fe0), DomId(0x7fe0));
        x.input.extent_start = XENS_OWN as *mut u64;
        x.output.mem_flags = NO_SUCH_NODE | EXACT_NODE;
    })
}

fn list_of_xens(context: &TestContext<'_>) -> Check {
    let nowhere = window(NOWHERE).as_u64();
    for start in [XENS_OWN, 0xffff_87ff_ffff_fff8, u64::MAX - 7, 0x7fff_ffff_f000, 0, nowhere] {
        let what = format!("in-list at {start:#x}");
        // SAFETY: a guest cannot read memory at these addresses.
        unsafe {
            refuses(context, ONE, &what, XenErrno::EFAULT, |x| {
                x.input.extent_start = start as *mut u64;
            })?;
        }
    }
    // All addresses of a translated guest are its own, so Xen accepts these lists. Then it refuses
    // the frame.
    let errno = if is_pv(context) { XenErrno::EFAULT } else { XenErrno::EOPNOTSUPP };
    // SAFETY: Xen refuses the argument before it takes a frame.
    unsafe {
        refuses(context, ONE, "lists that wrap around", errno, |x| {
            (x.input.nr_extents, x.output.nr_extents) = (1 << 61, 1 << 61);
        })?;
    }
    for start in [XENS_OWN, 0xffff_87ff_ffff_fff8] {
        let what = format!("out-list at {start:#x}");
        // SAFETY: Xen refuses the argument before it takes a frame.
        unsafe {
            refuses(context, ONE, &what, errno, |x| x.output.extent_start = start as *mut u64)?;
        }
    }
    Ok(())
}

fn node_refused(context: &TestContext<'_>) -> Check {
    let (what, flags) = match context.machine.initial_domain {
        true => ("a node out of range", NO_SUCH_NODE),
        false => ("an exact node", EXACT_NODE | 1 << NODE),
    };
    // SAFETY: Xen refuses the argument before it takes a frame.
    unsafe { refuses(context, ONE, what, XenErrno::EINVAL, |x| x.output.mem_flags = flags) }
}

fn node_as_a_hint(context: &TestContext<'_>) -> Check {
    if context.machine.initial_domain {
        skip!("Xen does not ignore the nodes that dom0 names");
    }
    if !is_pv(context) {
        // Xen ignores the node and refuses the exchange for another reason.
        // SAFETY: Xen refuses the exchange before it takes a frame.
        return unsafe {
            refuses(context, ONE, "any node", XenErrno::EOPNOTSUPP, |x| {
                x.output.mem_flags = NO_SUCH_NODE;
            })
        };
    }
    let specimen = Specimen::take(context, 1)?;
    // SAFETY: apart from the node this is an ordinary exchange.
    let attempt = unsafe { specimen.attempt(0, 0, |x| x.output.mem_flags = NO_SUCH_NODE) };
    specimen.settle(&attempt)?;
    attempt.succeeded("a node that does not exist", 1)
}

fn unknown_domain(context: &TestContext<'_>) -> Check {
    // The last two are DOMID_IO and DOMID_XEN. Xen knows these domains, but not by number here.
    for id in [0x7000, 0x7fef, 0x7ff1, 0x7ff2] {
        let what = format!("domain {id:#x}");
        // SAFETY: Xen refuses the argument before it takes a frame.
        unsafe {
            refuses(context, ONE, &what, XenErrno::ESRCH, |x| {
                (x.input.domid, x.output.domid) = (DomId(id), DomId(id));
            })?;
        }
    }
    Ok(())
}

fn domain_without_rights(context: &TestContext<'_>) -> Check {
    if context.machine.initial_domain {
        skip!("dom0 has rights over every domain");
    }
    // SAFETY: Xen refuses the argument before it takes a frame.
    unsafe {
        refuses(context, ONE, "dom0's memory", XenErrno::EPERM, |x| {
            (x.input.domid, x.output.domid) = (DomId(0), DomId(0));
        })
    }
}

fn start_extent(context: &TestContext<'_>) -> Check {
    let specimen = Specimen::take(context, 1)?;
    let (mut input, mut out) = ([specimen.gfns()[0]], [specimen.pfns()[0]]);
    let mut argument = MemoryExchange {
        input: extents(&mut input, 0),
        output: extents(&mut out, 0),
        nr_exchanged: 0,
    };
    let exchange = MemoryOp::Exchange(&mut argument).number();
    let command = u64::from(exchange) | 1 << COMMAND_BITS;
    let place = &raw mut argument as u64;
    // SAFETY: if Xen accepts the command, this exchanges an unmapped frame of the specimen. The
    // argument and its lists live across the call.
    let answer =
        unsafe { raw::call(xen_sys::__HYPERVISOR_memory_op, [command, place, 0, 0, 0, 0]) };
    // SAFETY: `argument` is alive. Xen may have written to it, so the read is volatile.
    let done = unsafe { (&raw const argument.nr_exchanged).read_volatile() };
    specimen.put_back()?;
    match (answer, done) {
        (Err(XenErrno::EINVAL), 0) => Ok(()),
        other => fail!("expected EINVAL and a count of 0, Xen answered {other:?}"),
    }
}

fn count_within_a_chunk(context: &TestContext<'_>) -> Check {
    let specimen = Specimen::take(context, 4)?;
    // SAFETY: apart from the count this is an ordinary exchange.
    let attempt = unsafe { specimen.attempt(0, 2, |x| x.nr_exchanged = 3) };
    specimen.settle(&attempt)?;
    if is_pv(context) {
        // By the count three of the four frames were done. Xen took all four.
        attempt.succeeded("three of four", 4)
    } else {
        // Xen resets the count to the number at which it began.
        attempt.refused("three of four", XenErrno::EOPNOTSUPP, 0)
    }
}
