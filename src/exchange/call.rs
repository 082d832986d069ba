//! One call of `XENMEM_exchange`, from the lists to what lies beneath the frames afterwards.

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use super::{Fate, Part, Request, decode};
use crate::addr::{Mfn, Order, Pfn};

/// No machine frame has this number: a page-table entry has room for 40 bits of it, and what does not
/// fit would be cut off without a word.
const FRAME_LIMIT: u64 = 1 << 40;

/// What became of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Frames that were exchanged, whole chunks from the first on. `beneath` names the new ones.
    pub exchanged: u64,
    /// What became of the rest.
    pub rest: Rest,
}

/// What became of the frames of a part that were not exchanged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest {
    /// There are none.
    None,
    /// They are as before.
    Refused(XenErrno),
    /// Nobody knows what is beneath them.
    Torn {
        /// What Xen answered, if it was an error.
        errno: Option<XenErrno>,
        /// Extents that it reported as exchanged.
        exchanged: u64,
    },
    /// Xen named a frame that can't be the first of such an extent.
    BadExtent(Mfn),
}

/// Entries that the out list of a part needs.
pub(super) const fn out_list_len(part: &Part) -> u64 {
    part.frames() >> part.output().get()
}

/// Exchanges a part. `beneath` has what lies beneath each of its frames, the first of which is
/// `first`; `out_list` has [`out_list_len`] entries.
///
/// # Safety
/// Nothing maps the frames (M2) and no vCPU remembers a mapping of them (flush rule 2). Both lists
/// lie outside the run (M3).
pub(super) unsafe fn exchange(
    xen: &impl Xen,
    first: Pfn,
    part: &Part,
    beneath: &mut [u64],
    out_list: &mut [u64],
) -> Answer {
    let pfn_of = |index: usize| first.add((index as u64) << part.output().get()).number();
    out_list.iter_mut().enumerate().for_each(|(index, entry)| *entry = pfn_of(index));
    // A part is either single frames, which `beneath` lists as it is, or one extent.
    let mut whole = [beneath.first().copied().unwrap_or(u64::MAX)];
    let in_list = if part.input() == Order::ZERO { &mut *beneath } else { &mut whole[..] };
    let extents = in_list.len() as u64;

    let mem_flags = part.placement().mem_flags();
    let mut argument = MemoryExchange {
        input: reservation(in_list, part.input(), MemFlags::default()),
        output: reservation(out_list, part.output(), mem_flags),
        nr_exchanged: 0,
    };
    // SAFETY: the lists and the struct are exclusively borrowed across the call and lie outside
    // the frames that are given up, which nothing maps: both by the caller's word.
    let rc = unsafe { xen.memory_op(MemoryOp::Exchange(&mut argument)) };

    let request = Request { extents, per_chunk: part.chunk() >> part.input().get() };
    let outs_per_chunk = (part.chunk() >> part.output().get()) as usize;
    let outcome = decode(rc, argument.nr_exchanged, request, |exchanged| {
        let start = ((exchanged << part.input().get()) >> part.output().get()) as usize;
        let chunk = out_list.iter().enumerate().skip(start).take(outs_per_chunk);
        chunk.into_iter().all(|(index, entry)| *entry == pfn_of(index))
    });

    let exchanged = outcome.exchanged << part.input().get();
    let limit = part.placement().bits.frame_limit().min(FRAME_LIMIT);
    let each = part.output().frames();
    let whole = (exchanged / each) as usize;
    for (entry, frames) in out_list.iter().take(whole).zip(beneath.chunks_exact_mut(each as usize))
    {
        let mfn = Mfn::new(*entry);
        let end = mfn.number().checked_add(each);
        if !mfn.is_aligned(part.output()) || end.is_none_or(|end| end > limit) {
            return Answer { exchanged: 0, rest: Rest::BadExtent(mfn) };
        }
        (mfn.number()..).zip(frames).for_each(|(number, slot)| *slot = number);
    }
    let rest = match outcome.fate {
        Fate::Complete => Rest::None,
        Fate::Refused(errno) => Rest::Refused(errno),
        Fate::Torn(errno) => Rest::Torn { errno, exchanged: argument.nr_exchanged },
    };
    Answer { exchanged, rest }
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
