//! The raw hypercall, and frames to exchange by it.

use alloc::vec::Vec;

use hypercall::abi::hvm::HVMMEM_RAM_RW;
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{HvmOp, MemoryOp, MulticallEntry, Pte, UvmFlags};
use hypercall::{DomId, Multicall, PageTableFlags, Xen, XenErrno};
use xen_contig::addr::{Mfn, Pfn};
use xen_contig::exchange::Capability;
use xen_contig::frames::FrameRun;
use xen_contig::vmap::Flush;

use super::m2p::{self, Answer};
use super::start_info::StartInfo;
use crate::layout::{self, READ_WRITE};
use crate::machine::Machine;
use crate::selftest::owned::OwnedRun;
use crate::selftest::{Check, TestContext, error, fail, frame_checks, skip};
use crate::vcpu::xen;

/// A window slot at which nothing is mapped.
pub const NOWHERE: u64 = layout::slot::PROBE;

/// The maximum number of frames of a specimen, whose lists are on the kernel's heap.
const MAX_FRAMES: u64 = 1 << 13;

/// The number of page-table updates in one hypercall.
const BATCH: usize = 64;

/// Returns true in a PV guest, where Xen exchanges.
pub fn is_pv(context: &TestContext<'_>) -> bool {
    context.machine.m2p.is_some()
}

/// Returns the highest order that Xen permits this domain.
pub fn limit(context: &TestContext<'_>) -> Result<u32, super::TestOutcome> {
    match context.machine.capability {
        Capability::Exchange { limit } | Capability::Refill { limit } => Ok(limit.get()),
        Capability::None { why } => fail!("{why}"),
    }
}

/// Skips a test that needs an exchange to pass Xen's first checks.
pub fn pv_only(context: &TestContext<'_>) -> Check {
    if !is_pv(context) {
        skip!("Xen refuses the exchange of a translated guest at the first frame");
    }
    Ok(())
}

/// Returns a reservation that names the list.
pub fn extents(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}

/// Calls the exchange with an argument.
///
/// # Safety
/// The lists are as the argument declares, or Xen refuses the argument before it uses them
/// ([M3](xen_contig::rules#M3)). Frames that Xen takes contain no Rust objects.
pub unsafe fn exchange(argument: &mut MemoryExchange) -> Answer {
    // SAFETY: this function has the contract of the exchange.
    unsafe { xen().memory_op(MemoryOp::Exchange(argument)) }
}

/// Makes a hypercall for which the `hypercall` crate has no function, as a multicall of one entry.
///
/// # Safety
/// The contract is that of the hypercall.
pub unsafe fn call(op: u32, args: [u64; 6]) -> Answer {
    let entry = xen_sys::multicall_entry { op: op.into(), result: 0, args };
    // SAFETY: `MulticallEntry` is a transparent wrapper of this type.
    let mut batch =
        [unsafe { core::mem::transmute::<xen_sys::multicall_entry, MulticallEntry>(entry) }];
    // SAFETY: this function has the contract of the hypercall.
    unsafe { xen().multicall(&mut batch) }?;
    batch[0].result()
}

/// Writes first-level entries of the linear mapping, each with its flush. This is slow and simple.
// It is not inlined, so that its batch is not on the stack of tests with deep calls.
#[inline(never)]
pub fn map(entries: impl Iterator<Item = (Pfn, Pte)>) -> Check {
    let mut batch: Multicall<'_, BATCH> = Multicall::new();
    let issue = |batch: &mut Multicall<'_, BATCH>| {
        // SAFETY: the callers map and unmap only frames that they own ([M1](xen_contig::rules#M1)),
        // and these contain no Rust objects.
        match unsafe { batch.issue(xen()) } {
            Ok(()) => Ok(()),
            Err(error) => error!("linear mapping: {error}"),
        }
    };
    for (pfn, pte) in entries {
        batch.update_va_mapping(layout::linear(pfn), pte, UvmFlags::INVLPG | UvmFlags::ALL);
        if batch.is_full() {
            issue(&mut batch)?;
        }
    }
    issue(&mut batch)
}

/// A run of frames for a raw exchange, filled with a pattern.
///
/// In a PV guest it is unmapped, so that no page-table entry references its frames.
pub struct Specimen<'c> {
    machine: &'c Machine,
    start_info: Option<StartInfo>,
    seed: u64,
    /// `None` after [`put_back_and`](Self::put_back_and).
    run: Option<FrameRun>,
    /// The number of each frame in the in-list.
    gfns: Vec<u64>,
    /// The number of frames at the front that were exchanged, so that they lack the pattern.
    moved: u64,
}

/// The result of a raw exchange.
pub struct Attempt {
    /// The result of the hypercall.
    pub answer: Answer,
    /// The count after the call.
    pub done: u64,
    /// The in-list after the call.
    pub input: Vec<u64>,
    /// The out-list after the call.
    pub out: Vec<u64>,
    /// The number of frames at the front of the run that were exchanged, by that count.
    frames: u64,
    out_order: u32,
}

impl<'c> Specimen<'c> {
    /// Takes a run of frames, fills it and unmaps it.
    pub fn take(context: &TestContext<'c>, frames: u64) -> Result<Self, super::TestOutcome> {
        let (machine, seed) = (context.machine, context.seed);
        if frames > MAX_FRAMES {
            skip!("the lists of {frames} frames are too long for the kernel's heap");
        }
        let start_info = StartInfo::find(machine);
        if start_info.is_none() && machine.m2p.is_some() {
            error!("the start info is not at the place that the builder used");
        }
        let run = OwnedRun::take(machine, frames)?;
        // Earlier tests may have left entries of areas.
        if let Err(error) = machine.areas.purge(&run, Flush::Inhibit) {
            error!("purging: {error}");
        }
        frame_checks::dirty(&run, seed);
        let gfns: Option<Vec<u64>> =
            run.iter().map(|pfn| machine.p2m.gfn(pfn).map(|gfn| gfn.number())).collect();
        let Some(gfns) = gfns else {
            fail!("the frame allocator handed out a frame without memory")
        };
        let run = Some(run.into_run());
        let specimen = Self { machine, start_info, seed, run, gfns, moved: 0 };
        specimen.unmap()?;
        Ok(specimen)
    }

    /// Takes a run that one extent of `order` backs. Works in PV only.
    pub fn contiguous(context: &TestContext<'c>, order: u32) -> Result<Self, super::TestOutcome> {
        let mut specimen = Self::take(context, 1 << order)?;
        // SAFETY: this is an ordinary exchange of unmapped frames of the specimen.
        let attempt = unsafe { specimen.attempt(0, order, |_| ()) };
        specimen.renew(&attempt)?;
        match attempt.answer {
            Ok(_) if specimen.moved == 1 << order => Ok(specimen),
            answer => {
                specimen.put_back()?;
                skip!("Xen has no extent of order {order}: {answer:?}")
            }
        }
    }

    fn is_pv(&self) -> bool {
        self.start_info.is_some()
    }

    fn run(&self) -> &FrameRun {
        let Some(run) = &self.run else { unreachable!("`put_back_and` consumes the specimen") };
        run
    }

    /// Maps the run to the frames that back it.
    fn map_all(&self) -> Check {
        if !self.is_pv() {
            return Ok(());
        }
        let pte = |(pfn, mfn): (Pfn, &u64)| (pfn, Pte::new(Mfn::new(*mfn), READ_WRITE));
        map(self.run().iter().zip(&self.gfns).map(pte))
    }

    /// Returns the numbers of the frames in the in-list.
    pub fn gfns(&self) -> &[u64] {
        &self.gfns
    }

    /// Returns the numbers of the frames in the out-list.
    pub fn pfns(&self) -> Vec<u64> {
        self.run().iter().map(Pfn::number).collect()
    }

    fn unmap(&self) -> Check {
        if self.is_pv() {
            map(self.run().iter().map(|pfn| (pfn, Pte::NOT_PRESENT)))
        } else {
            Ok(())
        }
    }

    /// Maps one frame with these rights, or removes its mapping.
    pub fn map_one(&self, index: usize, flags: Option<PageTableFlags>) -> Check {
        let mfn = Mfn::new(self.gfns[index]);
        let pte = flags.map_or(Pte::NOT_PRESENT, |flags| Pte::new(mfn, flags));
        map(core::iter::once((self.run().first().add(index as u64), pte)))
    }

    /// Fills the run with its pattern again, after an exchange.
    pub fn soil(&mut self) -> Check {
        self.map_all()?;
        frame_checks::dirty(self.run(), self.seed);
        self.moved = 0;
        self.unmap()
    }

    /// Exchanges the whole run: in-extents of one order for out-extents of another.
    ///
    /// `oddity` changes the argument to what the test tries.
    ///
    /// # Safety
    /// The changed argument meets the contract of [`exchange`].
    pub unsafe fn attempt(
        &self,
        in_order: u32,
        out_order: u32,
        oddity: impl FnOnce(&mut MemoryExchange),
    ) -> Attempt {
        let mut input: Vec<u64> = self.gfns.iter().copied().step_by(1 << in_order).collect();
        let mut out: Vec<u64> = self.pfns().into_iter().step_by(1 << out_order).collect();
        let mut argument = MemoryExchange {
            input: extents(&mut input, in_order),
            output: extents(&mut out, out_order),
            nr_exchanged: 0,
        };
        oddity(&mut argument);
        let before = argument.nr_exchanged;
        // SAFETY: the specimen owns the run, which is unmapped in PV. The lists live on the heap.
        // By this function's contract the changed argument meets the contract of `exchange`.
        let answer = unsafe { exchange(&mut argument) };
        let done = argument.nr_exchanged;
        // If the test itself wrote the count, it does not say what was done.
        let counted = if answer.is_err() && done == before { 0 } else { done };
        let frames = (counted << in_order).min(self.run().frames());
        Attempt { answer, done, input, out, frames, out_order }
    }

    /// Records the machine frames that back the run after an exchange. The frames stay unmapped.
    pub fn renew(&mut self, attempt: &Attempt) -> Check {
        let Some(info) = &self.start_info else { return Ok(()) };
        let order = attempt.out_order;
        for index in 0..attempt.frames {
            let first = attempt.out[(index >> order) as usize];
            let mfn = first + (index & ((1 << order) - 1));
            if !Mfn::new(first).number().is_multiple_of(1 << order) {
                fail!("mfn {first:#x} is not aligned to an extent of order {order}");
            }
            self.gfns[index as usize] = mfn;
            info.set_p2m(self.run().first().add(index), mfn);
        }
        self.moved = self.moved.max(attempt.frames);
        Ok(())
    }

    /// Records that another machine frame backs one frame of the run, or that its contents changed.
    pub fn replace(&mut self, index: usize, mfn: u64) {
        if let Some(info) = &self.start_info {
            info.set_p2m(self.run().first().add(index as u64), mfn);
            self.gfns[index] = mfn;
        }
        self.moved = self.moved.max(index as u64 + 1);
    }

    /// Maps the run, checks it and frees it.
    ///
    /// P2M, page tables and Xen's M2P must agree on it. Frames that were not exchanged must contain
    /// their pattern.
    pub fn put_back(self) -> Check {
        self.put_back_and(|_| ())
    }

    /// Does the same, and calls `look` with the mapped run.
    pub fn put_back_and(mut self, visit: impl FnOnce(&FrameRun)) -> Check {
        self.map_all()?;
        let (machine, seed, moved) = (self.machine, self.seed, self.moved);
        let gfns = core::mem::take(&mut self.gfns);
        let Some(run) = self.run.take() else {
            unreachable!("`put_back_and` consumes the specimen")
        };
        let agreed =
            frame_checks::agree(machine, &run, |index| Some(Mfn::new(gfns[index as usize])));
        let kept = match moved {
            0 => frame_checks::holds_pattern(&run, seed, "a frame that stayed"),
            // In a long run, the checked words depend on the length, so a part cannot be checked.
            _ if run.frames() > 512 => Ok(()),
            _ if moved == run.frames() => Ok(()),
            _ => {
                // SAFETY: this is a part of the run that is only read, and forgotten before the run
                // is freed.
                let rest = unsafe { FrameRun::new(run.first().add(moved), run.frames() - moved) };
                frame_checks::holds_pattern(&rest, seed, "a frame that stayed")
            }
        };
        visit(&run);
        machine.give(run);
        agreed.and(kept)
    }

    /// Records the result of an exchange and puts the run back.
    pub fn settle(mut self, attempt: &Attempt) -> Check {
        self.renew(attempt)?;
        self.put_back()
    }
}

impl Drop for Specimen<'_> {
    /// Frees the frames of a test that failed.
    ///
    /// A PV guest maps only its own memory, so memory backs each frame that Xen maps. In a
    /// translated guest Xen reports whether a frame has memory. Frames without memory are lost, and
    /// the accounts of the tests name their number.
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            free_populated(self.machine, &run, |index| self.gfns.get(index).copied());
        }
    }
}

/// Frees the frames of a run that have memory, after a failure that leaves open which have.
///
/// In a PV guest, `backing` returns the machine frame that backs a frame.
pub fn free_populated(machine: &Machine, run: &FrameRun, backing: impl Fn(usize) -> Option<u64>) {
    for (index, pfn) in run.iter().enumerate() {
        let maps = |mfn: u64| {
            let pte = Pte::new(Mfn::new(mfn), READ_WRITE);
            m2p::set(mfn, pfn.number()).is_ok() && map(core::iter::once((pfn, pte))).is_ok()
        };
        let has_memory = match machine.m2p {
            Some(_) => backing(index).is_some_and(maps),
            None => xen().hvm_op(HvmOp::GetMemType(pfn)) == Ok(HVMMEM_RAM_RW),
        };
        if has_memory {
            // SAFETY: this is one frame of the run, which the caller owns and does not use again
            // ([M1](xen_contig::rules#M1)).
            machine.give(unsafe { FrameRun::new(pfn, 1) });
        }
    }
}

impl Attempt {
    /// Checks that Xen refused with this error and left the count unchanged.
    pub fn refused(&self, what: &str, errno: XenErrno, count: u64) -> Check {
        if self.answer != Err(errno) || self.done != count {
            let (answer, done) = (&self.answer, self.done);
            fail!(
                "{what}: expected {errno} and a count of {count}, Xen answered {answer:?} and \
                 {done}"
            );
        }
        Ok(())
    }

    /// Checks that Xen exchanged all of it: this many in-extents.
    pub fn succeeded(&self, what: &str, extents: u64) -> Check {
        if self.answer != Ok(0) || self.done != extents {
            let (answer, done) = (&self.answer, self.done);
            fail!(
                "{what}: expected success and a count of {extents}, Xen answered {answer:?} and \
                 {done}"
            );
        }
        Ok(())
    }
}

/// Tries to exchange `frames` single frames for extents of `out_order`, with an invalid argument.
///
/// Xen must refuse it with `errno` and change neither the count, nor the out-list, nor a frame.
///
/// # Safety
/// The changed argument meets the contract of [`Specimen::attempt`].
pub unsafe fn refuses(
    context: &TestContext<'_>,
    (frames, out_order): (u64, u32),
    what: &str,
    errno: XenErrno,
    oddity: impl FnOnce(&mut MemoryExchange),
) -> Check {
    let specimen = Specimen::take(context, frames)?;
    let mut count = 0;
    // SAFETY: this function has the contract of `Specimen::attempt`.
    let attempt = unsafe {
        specimen.attempt(0, out_order, |argument| {
            oddity(argument);
            count = argument.nr_exchanged;
        })
    };
    let before = specimen.pfns();
    let before: Vec<u64> = before.into_iter().step_by(1 << out_order).collect();
    let list = attempt.out == before;
    specimen.settle(&attempt)?;
    attempt.refused(what, errno, count)?;
    if !list {
        fail!("{what}: Xen wrote to the out-list: {:x?}", attempt.out);
    }
    Ok(())
}
