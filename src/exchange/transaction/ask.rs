//! Asks Xen to exchange a part. Interprets nothing.

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen};

use crate::addr::{Order, Pfn};
use crate::exchange::part::Part;
use crate::exchange::reply::{ExchangeReply, asked_for};

/// Makes the hypercall for a part whose first frame is `first`.
///
/// `backing` has the machine frame of each frame of the part. `out_list` has an entry per new extent,
/// where Xen reports it.
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
    for (index, entry) in out_list.iter_mut().enumerate() {
        *entry = asked_for(first, part, index);
    }
    // A part gives up either single frames, which `backing` lists as it is, or one extent.
    let mut extent = [backing.first().copied().unwrap_or(u64::MAX)];
    let in_list = if part.input() == Order::ZERO { backing } else { &mut extent };
    let mut argument = MemoryExchange {
        input: reservation(in_list, part.input(), MemFlags::default()),
        output: reservation(out_list, part.output(), part.placement().mem_flags()),
        nr_exchanged: 0,
    };
    // SAFETY: nothing maps or remembers the frames, and the lists lie outside them: the function's
    // requirements ([M2](crate::rules#M2), [M3](crate::rules#M3)). The argument is a local. Lists and
    // argument are exclusively borrowed, so nothing else touches them during the call.
    let result = unsafe { xen.memory_op(MemoryOp::Exchange(&mut argument)) };
    ExchangeReply { result, nr_exchanged: argument.nr_exchanged }
}

fn reservation(list: &mut [u64], order: Order, mem_flags: MemFlags) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order.get(),
        mem_flags: mem_flags.raw(),
        domid: DomId::SELF,
    }
}
