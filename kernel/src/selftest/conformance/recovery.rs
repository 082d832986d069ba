//! [C51](xen_contig::conformance#C51) in the library: after an exchange that failed past the commit
//! point, does the library recover the new frames, except for those that it cannot find?
//!
//! The library's lists are memory that it can write, so the error cannot occur by itself. Here the
//! hypervisor that the library uses makes the out-list read-only during the call. The frame that
//! the library cannot find is one that the kernel does not report.

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
    EntryRow, FlushClock, FrameInUse, GuestMemory, Holder, LinearMapping, Word,
};

use super::raw::{limit, map, pv_only};
use super::start_info::StartInfo;
use crate::hypervisor::Hypervisor;
use crate::layout::{READ, READ_WRITE};
use crate::machine::Machine;
use crate::paging::Linear;
use crate::selftest::owned::OwnedRun;
use crate::selftest::{Check, Test, TestContext, TestOutcome, error, fail, frame_checks, skip};
use crate::vcpu::xen;

/// The number of out-list entries in a page.
const ENTRIES: usize = PAGE_SIZE / 8;

/// The number of extents of four frames. Each one is a chunk.
const EXTENTS: u64 = 4;
const ORDER: Order = match Order::new(2) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};
const FRAMES: u64 = EXTENTS * ORDER.frames();

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c51-recovery", |context| {
        // The chunk that fails is the first, one in the middle, or the last.
        [0, 1, EXTENTS - 1].into_iter().try_for_each(|torn| {
            recovers(context, torn)?;
            spares_the_others(context, torn)
        })
    }));
}

/// The result of an exchange that tore.
struct TornRun<'m> {
    error: ExchangeError,
    /// The runs that the library returned.
    remaining: Vec<OwnedRun<'m>>,
    first: Pfn,
    /// The machine frame that backed each frame before.
    old: Vec<Option<Mfn>>,
    /// The number of frames that were quarantined.
    quarantined: u64,
}

/// Exchanges so that Xen fails after the commit point of chunk `torn`. The M2P record of the frame
/// `hidden`, if any, is not reported.
fn tear<'m>(
    context: &TestContext<'m>,
    torn: u64,
    hidden: Option<u64>,
) -> Result<TornRun<'m>, TestOutcome> {
    pv_only(context)?;
    let machine = context.machine;
    if limit(context)? < ORDER.get() {
        skip!("Xen permits this domain no extent of order {ORDER}");
    }
    let (list, run) = (OwnedRun::take(machine, 2)?, OwnedRun::take(machine, FRAMES)?);
    let first = run.first();
    let old: Vec<Option<Mfn>> = run.iter().map(|pfn| machine.p2m.mfn(pfn)).collect();
    frame_checks::dirty(&run, context.seed);

    // The entries before `torn` lie at the end of the list's first page, the others in the second
    // page.
    let second = list.first().add(1);
    let Some(mfn) = machine.p2m.mfn(second) else {
        fail!("the frame allocator handed out a frame without memory")
    };
    // SAFETY: `list` owns two frames ([M1](xen_contig::rules#M1)), which are mapped side by side.
    // No other code uses them before they are freed below.
    let words = unsafe {
        core::slice::from_raw_parts_mut(crate::machine::word(list.first(), 0), 2 * ENTRIES)
    };
    let extents = &mut words[ENTRIES - torn as usize..][..EXTENTS as usize];
    let xen = WriteProtecting { xen: xen(), list: second, mfn };
    let linear =
        HidingLinear { linear: machine.linear, hidden: hidden.map(|index| first.add(index)) };
    // These accounts are separate, because the test finds the quarantined frame again.
    let accounts = Accounts::new();
    // SAFETY: there is one machine, and `xen` and `linear` pass all calls on to its hypervisor and
    // linear mapping.
    let exchanger = unsafe { Exchanger::new(&xen, *machine.p2m, &linear, &accounts, Order::MAX) };
    // The exchange must be a hypercall of its own, which `xen` recognizes.
    let exchanger =
        exchanger.with_options(ExchangeOptions { fuse: Fuse::Off, ..machine.exchange_options });
    let parts = [Part::gather(0, EXTENTS, ORDER, Placement::ANYWHERE)];
    let lists = Lists { backing: &mut alloc::vec![0; FRAMES as usize], extents };
    let result = exchanger.exchange(run.into_run(), &parts, OnRefusal::Undo, lists);
    drop(list);
    match result {
        Err(ExchangeFailure { error, remaining }) => {
            let remaining = remaining.into_iter().map(|run| OwnedRun::of(machine, run)).collect();
            Ok(TornRun { error, remaining, first, old, quarantined: accounts.quarantined() })
        }
        Ok(progress) => {
            machine.give(progress.run);
            fail!(
                "chunk {torn}: expected an error, but Xen wrote a read-only list: {:?}",
                progress.error
            )
        }
    }
}

/// Checks that the whole run is recovered.
fn recovers(context: &TestContext<'_>, torn: u64) -> Check {
    let machine = context.machine;
    let TornRun { error, mut remaining, old, quarantined, .. } = tear(context, torn, None)?;
    let done = torn * ORDER.frames();
    let expected = ExchangeError::Torn { errno: Some(XenErrno::EFAULT), exchanged: done };
    let Some(run) = remaining.pop().filter(|run| run.frames() == FRAMES) else {
        fail!("chunk {torn}: expected the whole run, but {quarantined} frames were lost: {error}")
    };
    // Frames that Xen did not reach are unchanged. Every other frame has a new machine frame.
    let reached = done + ORDER.frames();
    let right = run
        .iter()
        .zip(&old)
        .enumerate()
        .all(|(index, (pfn, old))| (machine.p2m.mfn(pfn) == *old) == (index as u64 >= reached));
    check_and_free(machine, run, &|_| None)?;
    if error != expected || quarantined != 0 {
        fail!("chunk {torn}: {error}, {quarantined} frames lost; expected {expected}");
    }
    if !right {
        fail!("chunk {torn}: the frames that changed are not the first {reached}");
    }
    Ok(())
}

/// Checks that all frames except the hidden one are recovered.
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
        // The chunks up to the torn one have new memory. The chunks after it have the old memory.
        let expected = |index| old[(at + index) as usize].filter(|_| at + index >= past);
        checks = checks.and(check_and_free(machine, run, &expected));
    }
    let pfn = first.add(hidden);
    let reachable =
        machine.p2m.mfn(pfn).is_some() || machine.linear.read(pfn).is_some_and(Pte::is_present);
    // SAFETY: the run lost this frame, and no other run contains it, because it was not among the
    // returned frames ([M1](xen_contig::rules#M1)).
    let lost = unsafe { FrameRun::new(pfn, 1) };
    find_again(context, &lost)?;
    // SAFETY: `lost` owns the frame ([M1](xen_contig::rules#M1)), which `find_again` has mapped.
    unsafe { machine.linear.zero(lost.first(), lost.frames()) };
    checks.and(check_and_free(machine, OwnedRun::of(machine, lost), &|_| None))?;
    let mut expected = alloc::vec![(0, hidden), (hidden + 1, FRAMES - hidden - 1)];
    expected.retain(|(_, frames)| *frames > 0);
    if pieces != expected || quarantined != 1 {
        fail!(
            "chunk {torn}: {quarantined} frames lost and {pieces:?} returned, expected 1 and \
             {expected:?}"
        );
    }
    if reachable {
        fail!(
            "chunk {torn}: pfn {pfn} is quarantined, but a mapping or the P2M still names its frame"
        );
    }
    Ok(())
}

/// Frees a run. All tables must agree on it, and it must be zeroed.
fn check_and_free(machine: &Machine, run: OwnedRun<'_>, mfn: &dyn Fn(u64) -> Option<Mfn>) -> Check {
    frame_checks::agree(machine, &run, mfn).and_then(|()| frame_checks::is_zero(&run, "a torn run"))
}

/// Maps the machine frames that Xen's M2P has for lost frames, as a kernel that reports all records
/// can do. Xen refuses to map a frame of another domain.
fn find_again(context: &TestContext<'_>, lost: &FrameRun) -> Check {
    let machine = context.machine;
    let Some(info) = StartInfo::find(machine) else {
        error!("the start info is not at the place that the builder used")
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
        Some(pfn) => fail!("no record names the new machine frame of pfn {pfn}"),
        None => Ok(()),
    }
}

/// A linear mapping that does not report the M2P record of one frame.
struct HidingLinear {
    linear: &'static Linear,
    hidden: Option<Pfn>,
}

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract.
unsafe impl GuestMemory for HidingLinear {
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

    unsafe fn load<T: Word>(&self, at: PseudoPhysAddr) -> T {
        // SAFETY: by the contract of `GuestMemory::load` the word lies in mapped frames, aligned to its
        // size. `Linear::load` has the same contract.
        unsafe { self.linear.load(at) }
    }

    unsafe fn store<T: Word>(&self, at: PseudoPhysAddr, value: T) {
        // SAFETY: by the contract of `GuestMemory::store` the word lies in mapped frames, aligned to its
        // size. `Linear::store` has the same contract.
        unsafe { self.linear.store(at, value) }
    }
}

// SAFETY: every method passes its arguments on to `Linear`, which fulfils the contract. `on_record`
// leaves out one frame, which the contract permits.
unsafe impl LinearMapping for HidingLinear {
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

/// A hypervisor that makes a page read-only in the guest during an exchange.
struct WriteProtecting {
    xen: &'static Hypervisor,
    list: Pfn,
    mfn: Mfn,
}

// SAFETY: every call is passed on unchanged. During an exchange one mapping is read-only, and no
// code writes through it meanwhile.
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
