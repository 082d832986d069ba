//! The pattern `bare`: the exchange alone.

use alloc::format;
use alloc::string::String;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use super::BenchEntry;
use super::tally::{Tally, measure};
use super::unmapped::UnmappedRun;
use crate::machine::Machine;
use crate::vcpu::xen;

/// Exchanges single frames of an unmapped run for one extent, and the extent for single frames.
///
/// This repeats `count` times, and nothing is mapped or zeroed in between.
///
/// # Errors
/// The guest has not enough memory, or Xen refused an exchange.
pub fn bare(machine: &Machine, entry: &BenchEntry, tally: &mut Tally) -> Result<(), String> {
    let frames = entry.order.frames();
    let mut lists =
        machine.lists(2 * frames).ok_or("the guest has no free memory for the lists")?;
    let (mfns, pfns) = lists.words().split_at_mut(frames as usize);
    let mut run = UnmappedRun::take(machine, mfns)?;
    for _ in 0..entry.count {
        let order = entry.order.get();
        pfns[0] = run.first();
        let (answer, cost) = measure(|| {
            let single = extents(run.mfns(), 0, 0);
            let limit = MemFlags::address_bits(entry.bits).raw();
            exchange(single, extents(&mut pfns[..1], order, limit))
        });
        answer.map_err(|errno| format!("Xen refused single frames for an extent: {errno}"))?;
        tally.allocated(cost);
        let extent = pfns[0];
        run.mfns().iter_mut().zip(extent..).for_each(|(mfn, number)| *mfn = number);
        pfns.iter_mut().zip(run.first()..).take(frames as usize).for_each(|(pfn, n)| *pfn = n);
        let (answer, cost) = measure(|| {
            let whole = extents(&mut run.mfns()[..1], order, 0);
            exchange(whole, extents(&mut pfns[..frames as usize], 0, 0))
        });
        answer.map_err(|errno| format!("Xen refused the extent for single frames: {errno}"))?;
        tally.freed(cost);
        run.mfns().copy_from_slice(&pfns[..frames as usize]);
        tally.ok += 1;
        tally.exchanged += 1;
    }
    run.map()
}

fn extents(list: &mut [u64], extent_order: u32, mem_flags: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order,
        mem_flags,
        domid: DomId::SELF,
    }
}

fn exchange(input: MemoryReservation, output: MemoryReservation) -> Result<u64, XenErrno> {
    let mut argument = MemoryExchange { input, output, nr_exchanged: 0 };
    // SAFETY: the run is unmapped and `UnmappedRun` owns it ([M2](xen_contig::rules#M2)). The lists
    // lie in memory that `bare` has borrowed, outside the run ([M3](xen_contig::rules#M3)).
    unsafe { xen().memory_op(MemoryOp::Exchange(&mut argument)) }
}
