//! [C50](xen_contig::conformance#C50) to [C54](xen_contig::conformance#C54): lists that Xen checks
//! too late. A guest that knows only the result of the hypercall would lose a frame in each of
//! these cases. The tests find the frame.

use alloc::vec::Vec;

use hypercall::XenErrno;
use hypercall::abi::memory::MemoryExchange;
use hypercall::ops::Pte;
use xen_contig::addr::{Gfn, Pfn};

use super::m2p;
use super::raw::{self, NOWHERE, Specimen, limit, map, pv_only};
use super::supply::{least_bits, least_bits_of};
use crate::guest::guest;
use crate::layout::{READ, READ_WRITE, linear, window};
use crate::machine::word;
use crate::say;
use crate::selftest::owned::OwnedRun;
use crate::selftest::{Check, Test, TestContext, TestOutcome, fail, skip};

/// A frame number that no guest has, for the search of the M2P.
const MARK: u64 = 0xc51_c51_c51;

/// The maximum number of extents that are offered to Xen to find the lost one. A debug build of Xen
/// logs each extent that it refuses.
const MAX_CANDIDATES: u64 = 64;

/// The highest order of an extent that is lost and found.
const MAX_ORDER: u32 = 9;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c50-out-list-unreadable", out_list_unreadable));
    tests.push(Test::new("c51-out-list-not-writable", out_list_not_writable));
    tests.push(Test::new("c53-lists-overlap", lists_overlap));
    tests.push(Test::new("c54-out-frame-in-use", out_frame_in_use).needs_order(1));
}

/// Returns true if a frame does not belong to the domain any more, because Xen refuses to map it.
fn is_gone(mfn: u64) -> bool {
    let mapped = guest().set_window(NOWHERE, Some((Gfn::new(mfn), READ)));
    if mapped.is_ok() {
        // Removing a mapping that was just made cannot fail.
        let _infallible = guest().set_window(NOWHERE, None);
    }
    mapped.is_err()
}

/// An extent that has few places below an address limit.
struct FewPlaces {
    order: u32,
    bits: u32,
    places: u64,
}

impl FewPlaces {
    /// Finds an order, and the least limit below which Xen has an extent of that order.
    fn find(context: &TestContext<'_>) -> Result<Self, TestOutcome> {
        let mut fewest = u64::MAX;
        for order in (0..=limit(context)?.min(MAX_ORDER)).rev() {
            let bits = match least_bits_of(context, order) {
                // Xen or the guest has no extent of this order.
                Err(TestOutcome::Skip(_)) => continue,
                bits => bits?,
            };
            let places = 1 << (bits - 12 - order);
            if places <= MAX_CANDIDATES {
                return Ok(Self { order, bits, places });
            }
            fewest = fewest.min(places);
        }
        skip!(
            "the lost extent would have at least {fewest} places, and a debug Xen logs each one that \
             the test tries; at most {MAX_CANDIDATES} are tried"
        )
    }
}

fn out_list_unreadable(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let FewPlaces { order, bits, places } = FewPlaces::find(context)?;
    let mut specimen = Specimen::take(context, 1 << order)?;
    let old = specimen.gfns()[0];
    // SAFETY: Xen cannot read or write the list.
    let attempt = unsafe {
        specimen.attempt(0, order, |x| {
            x.output.extent_start = window(NOWHERE).as_mut_ptr();
            x.output.mem_flags = bits;
        })
    };
    let gone = is_gone(old);
    // The new extent belongs to the domain, but no list and no M2P entry names it. The guest can
    // exchange only its own frames, so each place of an extent is offered to Xen.
    say!(
        "# c50: offers Xen at most {places} extents of order {order} (expected: a debug build of Xen \
         logs \"Bad steal mfn\" for each that it refuses)"
    );
    let pfn = specimen.pfns()[0];
    let mut found = None;
    for candidate in (0..places).map(|place| place << order) {
        let mut frames = candidate..candidate + (1 << order);
        if frames.any(|mfn| m2p::get(context.machine, mfn).is_some()) {
            continue;
        }
        let (mut input, mut out) = ([candidate], [pfn]);
        let mut argument = MemoryExchange {
            input: raw::extents(&mut input, order),
            output: raw::extents(&mut out, order),
            nr_exchanged: 0,
        };
        // SAFETY: by the M2P the frames belong to no guest, so they contain no Rust objects. Xen
        // exchanges no extent of which a frame belongs to another owner.
        if unsafe { raw::exchange(&mut argument) } == Ok(0) {
            found = Some(out[0]);
            break;
        }
    }
    match found {
        Some(first) => {
            (0..1 << order).for_each(|index| specimen.replace(index, first + index as u64));
        }
        None if gone => {
            fail!("the new extent was not found: none below 2^{bits} belongs to the domain")
        }
        None => {}
    }
    specimen.put_back()?;
    attempt.refused("unreadable", XenErrno::EFAULT, 0)?;
    if !gone {
        fail!("mfn {old:#x} still belongs to the domain");
    }
    Ok(())
}

fn out_list_not_writable(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let bits = least_bits(context)?;
    let end = 1 << (bits - 12);
    let machine = context.machine;
    let page = OwnedRun::take(machine, 1)?;
    let list = page.first();
    let Some(list_mfn) = machine.p2m.mfn(list) else {
        fail!("the frame allocator handed out a frame without memory")
    };
    // SAFETY: `page` owns the frame, which is mapped.
    unsafe { word(list, 0).write_volatile(MARK) };
    let mut specimen = Specimen::take(context, 1)?;
    let old = specimen.gfns()[0];
    map(core::iter::once((list, Pte::new(list_mfn, READ))))?;
    // SAFETY: the list is readable. The test needs that Xen cannot write to it.
    let attempt = unsafe {
        specimen.attempt(0, 0, |x| {
            x.output.extent_start = linear(list).as_mut_ptr();
            x.output.mem_flags = bits;
        })
    };
    if let Err(outcome) = map(core::iter::once((list, Pte::new(list_mfn, READ_WRITE)))) {
        // The frame cannot be used again.
        core::mem::forget(page);
        return Err(outcome);
    }
    // SAFETY: `page` owns the frame, which is mapped.
    let told = unsafe { word(list, 0).read_volatile() };
    drop(page);
    let gone = is_gone(old);
    // The M2P names the frame that the list does not. An exchange takes the frame by its number and
    // removes the mark.
    let found = m2p::find(machine, end, MARK);
    if let Some(mfn) = found {
        specimen.replace(0, mfn);
        // SAFETY: this is an ordinary exchange of a frame that contains no Rust objects.
        let back = unsafe { specimen.attempt(0, 0, |_| ()) };
        specimen.renew(&back)?;
    } else if gone {
        fail!("the new frame was not found in the M2P");
    }
    specimen.put_back()?;
    attempt.refused("not writable", XenErrno::EFAULT, 0)?;
    if !gone || told != MARK {
        fail!(
            "expected mfn {old:#x} gone and the list unchanged; gone: {gone}, the list contains \
             {told:#x}"
        );
    }
    Ok(())
}

fn lists_overlap(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, 1)?;
    let (old, pfn) = (specimen.gfns()[0], specimen.pfns()[0]);
    // SAFETY: one list serves as both, and it is long enough for either.
    let attempt =
        unsafe { specimen.attempt(0, 0, |x| x.output.extent_start = x.input.extent_start) };
    let new = attempt.input[0];
    let recorded = m2p::get(context.machine, new);
    if attempt.answer.is_ok() {
        if let Err(errno) = m2p::set(new, pfn) {
            fail!("correcting the M2P of mfn {new:#x}: {errno}");
        }
        specimen.replace(0, new);
    }
    specimen.put_back()?;
    attempt.succeeded("one list for both", 1)?;
    if recorded != Some(old) {
        fail!("the M2P has {recorded:x?} for the new frame, expected {old:#x} from the in-list");
    }
    Ok(())
}

fn out_frame_in_use(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let specimen = Specimen::take(context, 2)?;
    let first = specimen.pfns()[0];
    // The number is not aligned to an extent of two frames, and the second frame belongs to other
    // code.
    let wrong = Pfn::new(first).add(1).number();
    // SAFETY: the lists are valid memory. The code below corrects the records of the guest's
    // frames.
    let mut attempt = unsafe { specimen.attempt(0, 1, |x| x.output.extent_start.write(wrong)) };
    if attempt.answer.is_err() {
        attempt.out[0] = first;
        specimen.settle(&attempt)?;
        return attempt.succeeded("a frame in use", 2);
    }
    let new = attempt.out[0];
    let recorded = [new, new + 1].map(|mfn| m2p::get(context.machine, mfn));
    for index in 0..2 {
        if let Err(errno) = m2p::set(new + index, first + index) {
            fail!("correcting the M2P of mfn {:#x}: {errno}", new + index);
        }
    }
    specimen.settle(&attempt)?;
    attempt.succeeded("a frame in use", 2)?;
    if recorded != [Some(wrong), Some(wrong + 1)] {
        fail!("the M2P had {recorded:x?}, expected {wrong:#x} and the next one from the out-list");
    }
    Ok(())
}
