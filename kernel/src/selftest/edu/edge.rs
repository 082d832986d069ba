//! Does DMA work up to the last byte that the device can address?
//!
//! Xen hands out the highest memory below a limit first. The memory right below the limit may
//! belong to a guest already, usually to dom0 itself. Then this test returns that memory to Xen and
//! allocates it again.

use alloc::vec::Vec;

use xen_contig::addr::{Order, Pfn};

use super::buffer::{EduBuffer, FIRST_ABOVE, device_frame, take_at};
use super::{Check, PAGE, TestContext, TestOutcome, fail, open, round_trip, skip};
use crate::edu::{Edu, MASK, TransferError, reachable};
use crate::machine::ANYWHERE;
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::extent_limit;

/// The orders that the test tries, because each may come from another place.
const ORDERS: [u32; 4] = [9, 4, 2, 0];

/// The order that the test tries after it has returned the memory at the edge to Xen.
///
/// Freed memory is not scrubbed yet. While Xen has other memory, it splits unscrubbed memory only
/// for single frames (`get_free_buddy`).
const JUST_FREED: [u32; 1] = [0];

/// The address after the last byte that the device can address.
const EDGE: u64 = MASK + 1;

pub fn mask_edge(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let edu = open(machine)?;
    let (moved, buffer) = if machine.exchanger().is_none() {
        (None, highest_run(machine)?)
    } else {
        let nearest = nearest_extent(machine, &ORDERS)?;
        if nearest.device_end() == EDGE {
            (None, nearest)
        } else {
            nearest.release()?;
            let moved = give_edge_to_xen(machine)?;
            match nearest_extent(machine, &JUST_FREED) {
                Ok(nearest) => (moved, nearest),
                Err(outcome) => {
                    moved.map_or(Ok(()), EduBuffer::release)?;
                    return Err(outcome);
                }
            }
        }
    };
    // Declared last, and so dropped first: the device loses its right to do DMA before the buffer
    // is freed.
    let mut edu = edu;
    let (start, end) = (buffer.device_address(0), buffer.device_end());
    say!("# edu-dma-mask-edge: {} KiB at {start}, up to {end:#x}", buffer.bytes() >> 10);
    at_the_end(context, &mut edu, &buffer)?;
    drop(edu);
    buffer.release()?;
    moved.map_or(Ok(()), EduBuffer::release)?;
    if end != EDGE {
        skip!("the memory right below {EDGE:#x} belongs to Xen; tested up to {end:#x}")
    }
    Ok(())
}

/// Allocates extents of several orders, and keeps the one that ends nearest to the edge.
fn nearest_extent<'m>(machine: &'m Machine, orders: &[u32]) -> Result<EduBuffer<'m>, TestOutcome> {
    let mut tried = Vec::new();
    let permitted = |order: &Order| *order <= extent_limit(machine);
    for order in orders.iter().filter_map(|order| Order::new(*order).ok()).filter(permitted) {
        let buffer = match EduBuffer::new(machine, order) {
            Ok(buffer) => buffer,
            Err(TestOutcome::Skip(why)) => {
                say!("# edu-dma-mask-edge: order {order} skipped: {why}");
                continue;
            }
            Err(other) => {
                tried.into_iter().try_for_each(EduBuffer::release)?;
                return Err(other);
            }
        };
        let end = buffer.device_end();
        if end > EDGE {
            fail!("expected order {order} below {EDGE:#x}, got memory up to {end:#x}");
        }
        say!("# edu-dma-mask-edge: order {order} ends {} KiB below the edge", (EDGE - end) >> 10);
        tried.push(buffer);
        if end == EDGE {
            break;
        }
    }
    // The extents are released only after all were allocated. A release takes other frames from
    // Xen, and these could come from the edge.
    let Some(nearest) = (0..tried.len()).max_by_key(|index| tried[*index].device_end()) else {
        skip!("Xen has no memory below the edge for any order tried")
    };
    let nearest = tried.swap_remove(nearest);
    tried.into_iter().try_for_each(EduBuffer::release)?;
    Ok(nearest)
}

/// Exchanges the last frame below the edge, if it belongs to the guest and is free. Then Xen has
/// it, and hands it out next.
fn give_edge_to_xen(machine: &Machine) -> Result<Option<EduBuffer<'_>>, TestOutcome> {
    let last = |pfn: &Pfn| device_frame(machine, *pfn) == Some(FIRST_ABOVE - 1);
    let owned = (0..machine.p2m.frames()).map(Pfn::new).find(last);
    match owned.and_then(|pfn| take_at(machine, pfn, 1)) {
        Some(run) => EduBuffer::exchanged(machine, run, ANYWHERE).map(Some),
        None => Ok(None),
    }
}

/// Returns the guest's frames right below the edge, which are the device's frames in PVH.
fn highest_run(machine: &Machine) -> Result<EduBuffer<'_>, TestOutcome> {
    const FRAMES: u64 = 4;
    match take_at(machine, Pfn::new(FIRST_ABOVE - FRAMES), FRAMES) {
        Some(run) => Ok(EduBuffer::as_it_is(machine, run)),
        None => skip!("the guest's frames right below {EDGE:#x} are not free"),
    }
}

/// Moves data at the end of the buffer, and checks that no byte past it changes.
fn at_the_end(context: &TestContext<'_>, edu: &mut Edu, buffer: &EduBuffer<'_>) -> Check {
    let end = buffer.bytes();
    let window = end.saturating_sub(2 * PAGE)..end;
    let across = end.saturating_sub(PAGE + 13)..end - PAGE + 14;
    for (round, part) in (0..).zip([end - PAGE..end, across]) {
        round_trip(edu, buffer, part, window.clone(), (context.seed, round))?;
    }
    let last = buffer.device_address(end - 1);
    match (reachable(last, 1), reachable(last, 2)) {
        (Ok(()), Err(TransferError::AboveMask { .. })) => Ok(()),
        (Ok(()), Ok(())) if buffer.device_end() != EDGE => Ok(()),
        other => {
            fail!("expected the driver to accept one byte at {last} and refuse two, got {other:?}")
        }
    }
}
