//! The raw hypercall, and frames to try it with.

use alloc::vec::Vec;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemoryOp, MulticallEntry, Pte, UvmFlags};
use hypercall::{DomId, Multicall, PageTableFlags, Xen, XenErrno};
use xen_contig::addr::{Mfn, Pfn};
use xen_contig::exchange::Capability;
use xen_contig::frames::FrameRun;
use xen_contig::vmap::Flush;

use super::start_info::StartInfo;
use crate::layout::{self, READ_WRITE};
use crate::machine::Machine;
use crate::selftest::owned::Owned;
use crate::selftest::{Check, TestContext, error, fail, frame_checks, skip};
use crate::vcpu::xen;

/// Xen's answer.
pub type Answer = Result<u64, XenErrno>;

/// A window slot at which nothing is mapped.
pub const NOWHERE: u64 = 511;

/// Page-table updates in one crossing into Xen.
const BATCH: usize = 64;

/// Whether this is a PV guest, which is to say that there is an exchange to be had.
pub fn is_pv(context: &TestContext<'_>) -> bool {
    context.machine.m2p.is_some()
}

/// The highest order that Xen permits this domain.
pub fn limit(context: &TestContext<'_>) -> Result<u32, super::TestOutcome> {
    match context.machine.capability {
        Capability::Exchange { limit } | Capability::Refill { limit } => Ok(limit.get()),
        Capability::None { why } => fail!("{why}"),
    }
}

/// Skips a test that needs an exchange to get far.
pub fn pv_only(context: &TestContext<'_>) -> Check {
    if !is_pv(context) {
        skip!("Xen refuses a translated guest's exchange at the first frame");
    }
    Ok(())
}

/// A reservation of the list.
pub fn extents(list: &mut [u64], order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: list.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}

/// The exchange as it is.
///
/// # Safety
/// The lists are as the argument says or refused before they are used ([M3](xen_contig::rules#M3)).
/// Nothing of Rust's lies in frames that Xen takes.
pub unsafe fn exchange(argument: &mut MemoryExchange) -> Answer {
    // SAFETY: the caller's.
    unsafe { xen().memory_op(MemoryOp::Exchange(argument)) }
}

/// A hypercall that the `hypercall` crate does not make, through its seam as a batch of one.
///
/// # Safety
/// That of the hypercall.
pub unsafe fn call(op: u32, args: [u64; 6]) -> Answer {
    let entry = xen_sys::multicall_entry { op: op.into(), result: 0, args };
    // SAFETY: MulticallEntry is a transparent wrapper of this type.
    let mut batch =
        [unsafe { core::mem::transmute::<xen_sys::multicall_entry, MulticallEntry>(entry) }];
    // SAFETY: the caller's.
    unsafe { xen().multicall(&mut batch) }?;
    batch[0].result()
}

/// Writes first-level entries of the linear mapping, each with its flush: slow and beyond doubt.
// Not inlined, so that its batch is not on the stack of tests that go deep from there.
#[inline(never)]
pub fn map(entries: impl Iterator<Item = (Pfn, Pte)>) -> Check {
    let mut batch: Multicall<'_, BATCH> = Multicall::new();
    let issue = |batch: &mut Multicall<'_, BATCH>| {
        // SAFETY: callers map and unmap only frames of theirs ([M1](xen_contig::rules#M1)), which
        // hold nothing of Rust's.
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

/// A run of frames for a raw exchange: filled with a pattern, and in a PV guest unmapped, so that
/// nothing but the domain itself holds on to them.
pub struct Specimen<'c> {
    machine: &'c Machine,
    start_info: Option<StartInfo>,
    seed: u64,
    /// `None` once it was put back.
    run: Option<FrameRun>,
    /// What the guest names each frame by in the in-list.
    gfns: Vec<u64>,
    /// How many frames, from the first on, are not those that hold the pattern.
    moved: u64,
}

/// What came of a raw exchange.
pub struct Attempt {
    /// Xen's answer.
    pub answer: Answer,
    /// The count as Xen left it.
    pub done: u64,
    /// The in-list as Xen left it.
    pub input: Vec<u64>,
    /// The out-list as Xen left it.
    pub out: Vec<u64>,
    /// How many frames at the front of the run were exchanged, by that count.
    frames: u64,
    out_order: u32,
}

impl<'c> Specimen<'c> {
    /// Takes frames.
    pub fn take(context: &TestContext<'c>, frames: u64) -> Result<Self, super::TestOutcome> {
        let (machine, seed) = (context.machine, context.seed);
        let start_info = StartInfo::find(machine);
        if start_info.is_none() && machine.m2p.is_some() {
            error!("start info is not where the builder put it");
        }
        let run = Owned::take(machine, frames)?;
        // Areas of earlier tests may have left entries.
        if let Err(error) = machine.areas.purge(&run, Flush::Inhibit) {
            error!("purging: {error}");
        }
        frame_checks::dirty(&run, seed);
        let gfns: Option<Vec<u64>> =
            run.iter().map(|pfn| machine.p2m.gfn(pfn).map(|gfn| gfn.number())).collect();
        let Some(gfns) = gfns else { fail!("the allocator gave out a hole") };
        let run = Some(run.into_run());
        let specimen = Self { machine, start_info, seed, run, gfns, moved: 0 };
        specimen.unmap()?;
        Ok(specimen)
    }

    /// A run whose machine memory is one extent of `order`; in PV only.
    pub fn contiguous(context: &TestContext<'c>, order: u32) -> Result<Self, super::TestOutcome> {
        let mut specimen = Self::take(context, 1 << order)?;
        // SAFETY: an ordinary exchange of unmapped frames of ours.
        let attempt = unsafe { specimen.attempt(0, order, |_| ()) };
        specimen.renew(&attempt)?;
        match attempt.answer {
            Ok(_) if specimen.moved == 1 << order => Ok(specimen),
            answer => {
                specimen.put_back()?;
                skip!("an extent of order {order} is not to be had: {answer:?}")
            }
        }
    }

    fn is_pv(&self) -> bool {
        self.start_info.is_some()
    }

    fn run(&self) -> &FrameRun {
        let Some(run) = &self.run else { unreachable!("putting it back consumes the specimen") };
        run
    }

    /// Maps the run with the frames that back it.
    fn map_all(&self) -> Check {
        if !self.is_pv() {
            return Ok(());
        }
        let pte = |(pfn, mfn): (Pfn, &u64)| (pfn, Pte::new(Mfn::new(*mfn), READ_WRITE));
        map(self.run().iter().zip(&self.gfns).map(pte))
    }

    /// The frames as the in-list names them.
    pub fn gfns(&self) -> &[u64] {
        &self.gfns
    }

    /// The frames as the out-list names them.
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

    /// Maps one frame with these rights, or takes the mapping away.
    pub fn map_one(&self, index: usize, flags: Option<PageTableFlags>) -> Check {
        let mfn = Mfn::new(self.gfns[index]);
        let pte = flags.map_or(Pte::NOT_PRESENT, |flags| Pte::new(mfn, flags));
        map(core::iter::once((self.run().first().add(index as u64), pte)))
    }

    /// Exchanges the run: in-extents of one order for out-extents of another, all of it. `oddity`
    /// makes of the argument what is to be tried.
    ///
    /// # Safety
    /// What `oddity` makes of it fits [`exchange`].
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
        // SAFETY: the run is ours and, in PV, unmapped; the lists live on the heap; the rest is
        // the caller's.
        let answer = unsafe { exchange(&mut argument) };
        let done = argument.nr_exchanged;
        // A count that the test itself wrote says nothing of what was done.
        let counted = if answer.is_err() && done == before { 0 } else { done };
        let frames = (counted << in_order).min(self.run().frames());
        Attempt { answer, done, input, out, frames, out_order }
    }

    /// Notes what an exchange has put beneath the run. The frames stay unmapped.
    pub fn renew(&mut self, attempt: &Attempt) -> Check {
        let Some(info) = &self.start_info else { return Ok(()) };
        let order = attempt.out_order;
        for index in 0..attempt.frames {
            let first = attempt.out[(index >> order) as usize];
            let mfn = first + (index & ((1 << order) - 1));
            if !Mfn::new(first).number().is_multiple_of(1 << order) {
                fail!("mfn {first:#x} is no extent of order {order}");
            }
            self.gfns[index as usize] = mfn;
            info.set_p2m(self.run().first().add(index), mfn);
        }
        self.moved = self.moved.max(attempt.frames);
        Ok(())
    }

    /// Notes another machine frame beneath one frame of the run, or another content in it.
    pub fn replace(&mut self, index: usize, mfn: u64) {
        if let Some(info) = &self.start_info {
            info.set_p2m(self.run().first().add(index as u64), mfn);
            self.gfns[index] = mfn;
        }
        self.moved = self.moved.max(index as u64 + 1);
    }

    /// Maps the run and gives it back. P2M, page tables and Xen's M2P must agree on it, and what
    /// was not exchanged must hold its pattern.
    pub fn put_back(self) -> Check {
        self.put_back_and(|_| ())
    }

    /// The same, with a look at the run when it is mapped.
    pub fn put_back_and(mut self, look: impl FnOnce(&FrameRun)) -> Check {
        self.map_all()?;
        let (machine, seed, moved) = (self.machine, self.seed, self.moved);
        let gfns = core::mem::take(&mut self.gfns);
        let Some(run) = self.run.take() else { unreachable!("it is put back once") };
        let agreed =
            frame_checks::agree(machine, &run, |index| Some(Mfn::new(gfns[index as usize])));
        let kept = match moved {
            0 => frame_checks::holds_pattern(&run, seed, "a frame that stayed"),
            // Of a long run the pattern is looked at in a way that depends on its length.
            _ if run.frames() > 512 => Ok(()),
            _ if moved == run.frames() => Ok(()),
            _ => {
                // SAFETY: part of the run, only looked at, and forgotten before the run goes back.
                let rest = unsafe { FrameRun::new(run.first().add(moved), run.frames() - moved) };
                frame_checks::holds_pattern(&rest, seed, "a frame that stayed")
            }
        };
        look(&run);
        machine.give(run);
        agreed.and(kept)
    }

    /// Notes what was done and puts the run back.
    pub fn settle(mut self, attempt: &Attempt) -> Check {
        self.renew(attempt)?;
        self.put_back()
    }
}

impl Drop for Specimen<'_> {
    /// Frees the run of a test that failed, if Xen maps all of it.
    ///
    /// A PV guest maps only its own memory, so then each frame has memory.
    ///
    /// In a translated guest nobody can confirm that, and the frames stay out of use.
    fn drop(&mut self) {
        if self.run.is_some() && self.is_pv() && self.map_all().is_ok() {
            self.run.take().into_iter().for_each(|run| self.machine.give(run));
        }
    }
}

impl Attempt {
    /// Whether Xen refused with this errno and left the count alone.
    pub fn refused(&self, what: &str, errno: XenErrno, count: u64) -> Check {
        if self.answer != Err(errno) || self.done != count {
            let (answer, done) = (&self.answer, self.done);
            fail!("{what}: expected {errno} and {count}, Xen answered {answer:?} and {done}");
        }
        Ok(())
    }

    /// Whether Xen did it all: this many in-extents.
    pub fn succeeded(&self, what: &str, extents: u64) -> Check {
        if self.answer != Ok(0) || self.done != extents {
            let (answer, done) = (&self.answer, self.done);
            fail!("{what}: expected success and {extents}, Xen answered {answer:?} and {done}");
        }
        Ok(())
    }
}

/// Tries to exchange `frames` frames, single ones for one of `out_order`, with an oddity that Xen
/// must refuse with `errno`, the count as it was and everything in its place.
///
/// # Safety
/// As for [`Specimen::attempt`].
pub unsafe fn refuses(
    context: &TestContext<'_>,
    (frames, out_order): (u64, u32),
    what: &str,
    errno: XenErrno,
    oddity: impl FnOnce(&mut MemoryExchange),
) -> Check {
    let specimen = Specimen::take(context, frames)?;
    let mut count = 0;
    // SAFETY: the caller's.
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
        fail!("{what}: the out-list was written to: {:x?}", attempt.out);
    }
    Ok(())
}
