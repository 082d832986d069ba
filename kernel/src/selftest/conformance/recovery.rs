//! [C51](xen_contig::conformance#C51), of the component: the new frames of an exchange that failed
//! behind the commit point come back, or all but the chunk of which they can't be found.
//!
//! The component's lists are memory that it can write, so it can't run into this by itself. Here the
//! hypervisor that it is given takes the writable mapping of the out list away for the time of the
//! call. What it can't find is what the kernel does not show it.

use alloc::vec::Vec;

use hypercall::ops::{MemoryOp, Pte};
use hypercall::{Call, PageTableFlags, Xen, XenErrno};
use xen_contig::addr::{MachineAddr, Mfn, Order, PAGE_SIZE, Pfn, PseudoPhysAddr};
use xen_contig::exchange::{
    Accounts, ExchangeError, ExchangeFailure, ExchangeOptions, Exchanger, Fuse, Lists, OnRefusal,
    Part, Placement,
};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{
    EntryRow, FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping, Width,
};

use super::raw::{limit, map, pv_only};
use super::start_info::StartInfo;
use crate::hypervisor::Hypervisor;
use crate::layout::{READ, READ_WRITE};
use crate::machine::Machine;
use crate::paging::Linear;
use crate::selftest::owned::Owned;
use crate::selftest::{Check, Test, TestContext, TestOutcome, error, fail, frame_checks, skip};
use crate::vcpu::xen;

/// Entries of the out list in a page.
const ENTRIES: usize = PAGE_SIZE / 8;

/// Extents of four frames, each of them a chunk.
const EXTENTS: u64 = 4;
const ORDER: Order = match Order::new(2) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};
const FRAMES: u64 = EXTENTS * ORDER.frames();

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c51-recovery", |context| {
        // The first chunk fails, one in the middle, the last.
        [0, 1, EXTENTS - 1].into_iter().try_for_each(|torn| {
            recovers(context, torn)?;
            spares_the_others(context, torn)
        })
    }));
}

/// What came of an exchange that tore.
struct TornRun {
    error: ExchangeError,
    /// The runs that came back.
    remaining: Vec<FrameRun>,
    first: Pfn,
    /// What lay beneath each frame.
    old: Vec<Option<Mfn>>,
    /// Frames that were quarantined.
    quarantined: u64,
}

/// Exchanges so that Xen fails behind the commit point of chunk `torn`. One frame, if any, the M2P
/// does not show.
fn tear(context: &TestContext<'_>, torn: u64, hidden: Option<u64>) -> Result<TornRun, TestOutcome> {
    pv_only(context)?;
    let machine = context.machine;
    if limit(context)? < ORDER.get() {
        skip!("Xen permits this domain no extent of order {ORDER}");
    }
    let (list, run) = (Owned::take(machine, 2)?, Owned::take(machine, FRAMES)?);
    let first = run.first();
    let old: Vec<Option<Mfn>> = run.iter().map(|pfn| machine.p2m.mfn(pfn)).collect();
    frame_checks::dirty(&run, context.seed);

    // The entries before `torn` lie at the end of the list's first page, the others in the second.
    let second = list.first().add(1);
    let Some(mfn) = machine.p2m.mfn(second) else { fail!("the allocator gave out a hole") };
    // SAFETY: two frames of ours ([M1](xen_contig::rules#M1)), mapped side by side and used by
    // nobody else until they are given back below.
    let words = unsafe {
        core::slice::from_raw_parts_mut(crate::machine::word(list.first(), 0), 2 * ENTRIES)
    };
    let extents = &mut words[ENTRIES - torn as usize..][..EXTENTS as usize];
    let xen = WriteProtecting { xen: xen(), list: second, mfn };
    let linear = Hiding { linear: machine.linear, hidden: hidden.map(|index| first.add(index)) };
    // Of its own: what is quarantined here is found again.
    let accounts = Accounts::new();
    // SAFETY: there is one machine, whose hypervisor and linear mapping `xen` and `linear` pass on.
    let exchanger = unsafe { Exchanger::new(&xen, *machine.p2m, &linear, &accounts, Order::MAX) };
    // The exchange is a hypercall of its own, which `xen` recognizes.
    let exchanger =
        exchanger.with_options(ExchangeOptions { fuse: Fuse::Off, ..machine.exchange_options });
    let parts = [Part::gather(0, EXTENTS, ORDER, Placement::ANYWHERE)];
    let lists = Lists { backing: &mut alloc::vec![0; FRAMES as usize], extents };
    let result = exchanger.exchange(run.into_run(), &parts, OnRefusal::Undo, lists);
    drop(list);
    match result {
        Err(ExchangeFailure { error, remaining }) => {
            let remaining = remaining.into_iter().collect();
            Ok(TornRun { error, remaining, first, old, quarantined: accounts.quarantined() })
        }
        Ok(progress) => {
            machine.give(progress.run);
            fail!("chunk {torn}: Xen wrote a read-only list: {:?}", progress.error)
        }
    }
}

/// Wants the whole run back.
fn recovers(context: &TestContext<'_>, torn: u64) -> Check {
    let machine = context.machine;
    let TornRun { error, mut remaining, old, quarantined, .. } = tear(context, torn, None)?;
    let done = torn * ORDER.frames();
    let expected = ExchangeError::Torn { errno: Some(XenErrno::EFAULT), exchanged: done };
    let Some(run) = remaining.pop().filter(|run| run.frames() == FRAMES) else {
        fail!("chunk {torn}: {quarantined} frames lost: {error}")
    };
    // Those that Xen did not reach are as before; of the others none is.
    let reached = done + ORDER.frames();
    let right = run
        .iter()
        .zip(&old)
        .enumerate()
        .all(|(index, (pfn, old))| (machine.p2m.mfn(pfn) == *old) == (index as u64 >= reached));
    come_back(machine, run, &|_| None)?;
    if error != expected || quarantined != 0 {
        fail!("chunk {torn}: {error}, {quarantined} frames lost; expected {expected}");
    }
    if !right {
        fail!("chunk {torn}: the frames that moved are not the first {reached}");
    }
    Ok(())
}

/// Wants back all but one frame of the chunk, which is not found.
fn spares_the_others(context: &TestContext<'_>, torn: u64) -> Check {
    let machine = context.machine;
    let done = torn * ORDER.frames();
    let (hidden, past) = (done + torn, done + ORDER.frames());
    let TornRun { error: _, remaining, first, old, quarantined } =
        tear(context, torn, Some(hidden))?;
    let (mut checks, mut pieces) = (Ok(()), Vec::new());
    for run in remaining {
        let at = run.first().number() - first.number();
        pieces.push((at, run.frames()));
        // The chunks up to the torn one have new memory, those past it the old.
        let expected = |index| old[(at + index) as usize].filter(|_| at + index >= past);
        checks = checks.and(come_back(machine, run, &expected));
    }
    let pfn = first.add(hidden);
    let reachable =
        machine.p2m.mfn(pfn).is_some() || machine.linear.read(pfn).is_some_and(Pte::is_present);
    // SAFETY: the frame of the run above that nobody has ([M1](xen_contig::rules#M1)): it was not
    // among what came back.
    let lost = unsafe { FrameRun::new(pfn, 1) };
    find_again(context, &lost)?;
    // SAFETY: as above, and mapped.
    unsafe { machine.linear.zero(lost.first(), lost.frames()) };
    checks.and(come_back(machine, lost, &|_| None))?;
    let mut expected = alloc::vec![(0, hidden), (hidden + 1, FRAMES - hidden - 1)];
    expected.retain(|(_, frames)| *frames > 0);
    if pieces != expected || quarantined != 1 {
        fail!("chunk {torn}: {quarantined} frames lost, {pieces:?} left, expected {expected:?}");
    }
    if reachable {
        fail!("chunk {torn}: pfn {pfn} is quarantined, and reachable");
    }
    Ok(())
}

/// Gives a run back, of which all books have to agree, and which holds nothing.
fn come_back(machine: &Machine, run: FrameRun, mfn: &dyn Fn(u64) -> Option<Mfn>) -> Check {
    let checks = frame_checks::agree(machine, &run, mfn)
        .and_then(|()| frame_checks::is_zero(&run, "a torn run"));
    machine.give(run);
    checks
}

/// Maps what Xen has on record for frames that the component gave up looking for, as a kernel that
/// shows it all can: what is another domain's, Xen refuses to map.
fn find_again(context: &TestContext<'_>, lost: &FrameRun) -> Check {
    let machine = context.machine;
    let Some(info) = StartInfo::find(machine) else {
        error!("start info is not where the builder put it")
    };
    let mut on_record = Vec::new();
    machine.linear.on_record(lost.first(), lost.frames(), &mut |pfn, mfn| {
        on_record.push((pfn, mfn));
    });
    for (pfn, mfn) in on_record {
        if map(core::iter::once((pfn, Pte::new(mfn, READ_WRITE)))).is_ok() {
            info.set_p2m(pfn, mfn.number());
        }
    }
    match lost.iter().find(|pfn| machine.p2m.mfn(*pfn).is_none()) {
        Some(pfn) => fail!("the new frame beneath pfn {pfn} is on record nowhere"),
        None => Ok(()),
    }
}

/// The linear mapping, but that one frame's record is not seen.
struct Hiding {
    linear: &'static Linear,
    hidden: Option<Pfn>,
}

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract.
unsafe impl GuestMemory for Hiding {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        // SAFETY: by the contract of `GuestMemory::zero` the frames are populated and mapped, and no
        // other code uses them. `Linear::zero` has the same contract.
        unsafe { self.linear.zero(first, frames) }
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.linear.pointer(pfn)
    }

    fn purge(&self, run: &FrameRun) -> Result<(), FrameInUse> {
        self.linear.purge(run)
    }

    fn holder(&self, pfn: Pfn, mfn: Option<Mfn>) -> Holder {
        self.linear.holder(pfn, mfn)
    }

    unsafe fn load(&self, at: PseudoPhysAddr, width: Width) -> u64 {
        // SAFETY: by the contract of `GuestMemory::load` the word lies in mapped frames, aligned to its
        // size. `Linear::load` has the same contract.
        unsafe { self.linear.load(at, width) }
    }

    unsafe fn store(&self, at: PseudoPhysAddr, width: Width, value: u64) {
        // SAFETY: by the contract of `GuestMemory::store` the word lies in mapped frames, aligned to its
        // size. `Linear::store` has the same contract.
        unsafe { self.linear.store(at, width, value) }
    }
}

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract. `on_record`
// leaves out one frame, which the contract permits: a kernel may leave out all.
unsafe impl LinearMapping for Hiding {
    fn entry(&self, pfn: Pfn) -> MachineAddr {
        self.linear.entry(pfn)
    }

    fn entries(&self, first: Pfn, frames: u64) -> EntryRow {
        self.linear.entries(first, frames)
    }

    fn flags(&self) -> PageTableFlags {
        self.linear.flags()
    }

    fn flushes(&self) -> &FlushClock {
        self.linear.flushes()
    }

    fn on_record(&self, first: Pfn, frames: u64, see: &mut dyn FnMut(Pfn, Mfn)) {
        self.linear.on_record(first, frames, &mut |pfn, mfn| {
            if self.hidden != Some(pfn) {
                see(pfn, mfn);
            }
        });
    }
}

/// The hypervisor, but that a page is read-only in the guest while it exchanges.
struct WriteProtecting {
    xen: &'static Hypervisor,
    list: Pfn,
    mfn: Mfn,
}

// SAFETY: passes every call on unchanged. For the time of an exchange it removes a mapping that nobody
// uses meanwhile.
unsafe impl Xen for WriteProtecting {
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        let protect = |flags| {
            let entry = (self.list, Pte::new(self.mfn, flags));
            map(core::iter::once(entry)).map_err(|_| XenErrno::EIO)
        };
        let is_exchange = matches!(call, Call::Memory(MemoryOp::Exchange(_)));
        if is_exchange {
            protect(READ)?;
        }
        // SAFETY: this function requires what the call requires, except that Xen cannot write to the
        // list of an exchange. The test needs that, and Xen checks it.
        let answer = unsafe { self.xen.call(call) };
        if is_exchange {
            protect(READ_WRITE)?;
        }
        answer
    }
}
