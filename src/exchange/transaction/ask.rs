//! Asks Xen to exchange a part. Interprets nothing.

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::{Order, Pfn};
use crate::exchange::part::Part;
use crate::exchange::reply::{ExchangeReply, asked_for};

/// Makes the hypercall for a part whose first frame is `first`.
///
/// `backing` has the machine frame of each frame of the part; during the call its first entries are
/// Xen's in-list. `out_list` has an entry per new extent, where Xen reports it.
///
/// # Safety
/// * No page-table entry maps the frames ([M2](crate::rules#M2)), and every vCPU was flushed since the
///   last one was cleared ([F2](crate::rules#F2)).
/// * Both lists lie outside the run and are mapped writable ([M3](crate::rules#M3)).
pub(super) unsafe fn ask(
    xen: &impl Xen,
    first: Pfn,
    part: &Part,
    backing: &mut [u64],
    out_list: &mut [u64],
) -> ExchangeReply {
    let mut question = question(first, part, backing, out_list);
    // SAFETY: nothing maps or remembers the frames, and the lists lie outside them: the function's
    // requirements ([M2](crate::rules#M2), [M3](crate::rules#M3)). The argument is a local. Lists and
    // argument are exclusively borrowed, so nothing else touches them during the call.
    let result = unsafe { xen.memory_op(MemoryOp::Exchange(&mut question)) };
    reply(&question, part, backing, result)
}

/// Returns the argument of the hypercall for a part, and fills its lists. They are not touched before
/// [`reply`].
pub(super) fn question(
    first: Pfn,
    part: &Part,
    backing: &mut [u64],
    out_list: &mut [u64],
) -> MemoryExchange {
    for (index, entry) in out_list.iter_mut().enumerate() {
        *entry = asked_for(first, part, index);
    }
    list_extents(backing, part.input());
    let in_list = &mut backing[..part.in_extents() as usize];
    MemoryExchange {
        input: reservation(in_list, part.input(), MemFlags::default()),
        output: reservation(out_list, part.output(), part.placement().mem_flags()),
        nr_exchanged: 0,
    }
}

/// Returns Xen's reply to a question. Afterwards `backing` has the machine frame of each frame again.
pub(super) fn reply(
    question: &MemoryExchange,
    part: &Part,
    backing: &mut [u64],
    result: Result<u64, XenErrno>,
) -> ExchangeReply {
    list_frames(backing, part.input());
    ExchangeReply { result, nr_exchanged: question.nr_exchanged }
}

/// Replaces a list of frames by the first frame of each extent, at the beginning of the list.
fn list_extents(list: &mut [u64], order: Order) {
    if order == Order::ZERO {
        return;
    }
    for extent in 1..list.len() >> order.get() {
        list[extent] = list[extent << order.get()];
    }
}

/// Replaces the first frames of extents, at the beginning of the list, by all frames.
fn list_frames(list: &mut [u64], order: Order) {
    if order == Order::ZERO {
        return;
    }
    // The last extent first: its frames lie past the entries of those before it.
    for extent in (0..list.len() >> order.get()).rev() {
        let frames = list[extent]..;
        let place = &mut list[extent << order.get()..][..1 << order.get()];
        place.iter_mut().zip(frames).for_each(|(entry, frame)| *entry = frame);
    }
}

pub(super) fn reservation(
    list: &mut [u64],
    order: Order,
    mem_flags: MemFlags,
) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order.get(),
        mem_flags: mem_flags.raw(),
        domid: DomId::SELF,
    }
}
