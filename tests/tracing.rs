//! The tracer records every call and changes none. A multicall checks every result.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fake_xen::{Asked, FakeGuest, Fault, Logged, Mark, Snapshot};
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{
    EventChannelOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, PhysdevOp,
    Port, Pte, SchedOp, UvmFlags, VcpuOp, VersionOp,
};
use hypercall::trace::{CallTotals, Hypercall, Level, Phase, RING_ENTRIES, Span, TraceEntry};
use hypercall::{DomId, Multicall, MulticallError, Traced, Xen, XenErrno};
use xen_contig::addr::{AddressBits, Mfn, Order, Pfn};
use xen_contig::exchange::{Accounts, Capability};
use xen_contig::paging::LinearMapping;

fn clock() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(1, Relaxed)
}

/// Makes calls of every kind, with successes and refusals. Returns all results.
fn script(guest: &FakeGuest, xen: &impl Xen) -> Vec<String> {
    let mut seen = Vec::new();
    let accounts = Accounts::new();
    seen.push(format!("{:?}", Capability::ask(xen, &guest.p2m())));
    let exchanger = guest.exchanger_via(xen, guest, &accounts, Order::MAX);
    let mut list = [0; 128];
    let extent = exchanger.acquire(guest.run(1024, 64), AddressBits::UNLIMITED, &mut list);
    seen.push(format!("{extent:?}"));
    seen.push(format!("{:?}", exchanger.release(extent.unwrap(), &mut list)));
    guest.alias(3, Pfn::new(1025));
    seen.push(format!(
        "{:?}",
        exchanger.acquire(guest.run(1024, 64), AddressBits::UNLIMITED, &mut list)
    ));
    guest.unalias(3);
    let mut done = 0;
    let entry = guest.entry(Pfn::new(700)).get();
    let updates = [
        MmuUpdate::page_table(entry, Pte::NOT_PRESENT),
        MmuUpdate::page_table(entry, Pte::new(Mfn::new(1 << 30), guest.flags())),
    ];
    // SAFETY: the model's frames contain no Rust object.
    let result = unsafe { xen.mmu_update(&updates, &mut done, DomId::SELF) };
    seen.push(format!("{result:?} {done}"));
    let back = Pte::new(guest.mfn(Pfn::new(700)).unwrap(), guest.flags());
    let address = guest.address(Pfn::new(700));
    // SAFETY: the model's frames contain no Rust object.
    seen.push(format!("{:?}", unsafe { xen.update_va_mapping(address, back, UvmFlags::INVLPG) }));
    // SAFETY: Xen refuses the operation, because the frame is not a page table.
    let result = unsafe { xen.mmuext_op(&[MmuExtOp::unpin(Mfn::new(2))], &mut done, DomId::SELF) };
    seen.push(format!("{result:?} {done}"));
    let mut batch = [MulticallEntry::update_va_mapping(address, back, UvmFlags::ALL)];
    // SAFETY: the model's frames contain no Rust object.
    seen.push(format!("{:?}", unsafe { xen.multicall(&mut batch) }));
    seen.push(format!("{:?}", batch[0].result()));
    seen.push(format!("{:?}", xen.xen_version(VersionOp::Version)));
    seen.push(format!("{:?}", xen.hvm_op(HvmOp::GetParam(HvmParamIndex::ConsolePfn))));
    // SAFETY: `VCPUOP_is_up` accesses no memory of the guest.
    seen.push(format!("{:?}", unsafe { xen.vcpu_op(VcpuOp::IsUp, 9) }));
    seen.push(format!("{:?}", xen.sched_op(SchedOp::Yield)));
    seen.push(format!("{:?}", xen.console_write(b"hello")));
    seen.push(format!("{:?}", xen.event_channel_op(EventChannelOp::Send(Port(1)))));
    // SAFETY: `XENMEM_maximum_ram_page` accesses no memory of the guest.
    seen.push(format!("{:?}", unsafe { xen.memory_op(MemoryOp::MaximumRamPage) }));
    seen
}

#[test]
fn tracing_changes_nothing() {
    let run = |traced: bool| -> (Vec<String>, Vec<Logged>, Snapshot) {
        let guest = FakeGuest::new(2048);
        let seen = if traced {
            script(&guest, &Traced::new(guest.xen().clone(), clock))
        } else {
            script(&guest, guest.xen())
        };
        guest.check_whole();
        (seen, guest.xen().take_log(), guest.snapshot())
    };
    assert_eq!(run(true), run(false));
}

/// Returns the calls of a log without the entries of multicalls.
///
/// Only the log of the model has an entry as a call of its own.
fn calls_of_the_guest(log: Vec<Logged>) -> Vec<Logged> {
    let mut entries_left = 0;
    let made = log.into_iter().filter(|call| {
        let is_entry = entries_left > 0;
        entries_left = match call.asked {
            Asked::Multicall { entries } => entries,
            _ => usize::saturating_sub(entries_left, 1),
        };
        !is_entry
    });
    made.collect()
}

#[test]
fn the_summary_counts_what_the_hypervisor_saw() {
    let guest = FakeGuest::new(2048);
    let traced = Traced::new(guest.xen().clone(), clock);
    script(&guest, &traced);
    let log = calls_of_the_guest(guest.xen().take_log());
    let summary = traced.summary();
    let count = |which: fn(&Asked) -> Option<usize>| {
        let calls = || log.iter().filter_map(|call| Some((which(&call.asked)?, call.answer)));
        CallTotals {
            calls: calls().count() as u64,
            sub_operations: calls().map(|(sub_operations, _)| sub_operations as u64).sum(),
            flushes: log
                .iter()
                .filter(|call| call.asked.flushes() && which(&call.asked).is_some())
                .count() as u64,
            errors: calls().filter(|(_, answer)| answer.is_err()).count() as u64,
        }
    };
    let mmu_update = count(|asked| match asked {
        Asked::MmuUpdate { updates } => Some(*updates),
        _ => None,
    });
    let mmuext = count(|asked| match asked {
        Asked::MmuExt(ops) => Some(ops.len()),
        _ => None,
    });
    // One call with two entries fails, and each of three attaches has 64 entries. Multicalls make the
    // other updates.
    let expected = CallTotals { calls: 4, sub_operations: 2 + 3 * 64, flushes: 0, errors: 1 };
    assert_eq!(mmu_update, expected);
    assert_eq!(summary.row(Hypercall::MmuUpdate), mmu_update);
    assert_eq!(mmuext, CallTotals { calls: 1, sub_operations: 1, flushes: 0, errors: 1 });
    assert_eq!(summary.row(Hypercall::MmuExtOp), mmuext);
    assert_eq!(summary.row(Hypercall::UpdateVaMapping).calls, 1);
    let multicall = CallTotals { calls: 4, sub_operations: 3 * 3 + 1, flushes: 3, errors: 0 };
    assert_eq!(summary.row(Hypercall::Multicall), multicall);
    assert_eq!(summary.row(Hypercall::SetTrapTable), CallTotals::default());
    let errors = log.iter().filter(|call| call.answer.is_err()).count() as u64;
    assert_eq!((summary.total().calls, summary.total().errors), (log.len() as u64, errors));
    let table = summary.to_string();
    assert!(table.contains("mmu_update") && table.contains("194"), "{table}");
    assert!(!table.contains("set_trap_table"), "{table}");
}

#[test]
fn a_multicall_is_one_line_that_names_its_entries() {
    let guest = FakeGuest::new(2048);
    let traced = Traced::new(guest.xen().clone(), clock);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger_via(&traced, &guest, &accounts, Order::MAX);
    let bits = AddressBits::new(24).unwrap();
    assert!(exchanger.acquire(guest.run(1024, 64), bits, &mut [0; 64]).is_ok());
    let mut lines = vec![];
    assert!(traced.recent(|entry| lines.push(format!("{} {:?}", entry.call, entry.done))));
    let line = "multicall entries=3 mmu_update count=64 mmuext_op count=1 exchange out_order=6 \
                bits=24 Some(3)";
    assert_eq!(lines[0], line);
    assert!(lines.len() == 2 && lines[1].starts_with("mmu_update count=64"), "{lines:?}");
}

#[test]
fn the_ring_keeps_the_last_entries() {
    let guest = FakeGuest::new(512);
    let traced = Traced::new(guest.xen().clone(), clock);
    for calls in [10, 54, 100] {
        for port in 0..calls {
            traced.event_channel_op(EventChannelOp::Send(Port(port))).unwrap();
        }
        let total = traced.summary().total().calls;
        let mut sequence = Vec::new();
        assert!(traced.recent(|entry| sequence.push(entry.sequence)));
        let kept = total.min(RING_ENTRIES as u64);
        assert_eq!(sequence, (total - kept..total).collect::<Vec<_>>());
    }
    let mut ports = Vec::new();
    traced.recent(|entry| ports.push(entry.call.to_string()));
    assert_eq!(ports.last().unwrap(), "event_channel_op send port=99");
}

#[test]
fn the_sink_gets_calls_at_full_level_alone() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn sink(entry: &TraceEntry) {
        SEEN.lock().unwrap().push(format!("{}", entry.call));
    }
    let guest = FakeGuest::new(512);
    let traced = Traced::new(guest.xen().clone(), clock);
    for (level, expected) in [(Level::Off, 0), (Level::Summary, 0), (Level::Full, 2)] {
        traced.show(level, sink);
        assert_eq!(traced.level(), level);
        assert_eq!(traced.console_write(b"x"), Err(XenErrno::EPERM));
        let mut done = 0;
        // SAFETY: a flush changes no mapping.
        unsafe { traced.mmuext_op(&[MmuExtOp::tlb_flush_all()], &mut done, DomId::SELF) }.unwrap();
        assert_eq!(SEEN.lock().unwrap().len(), expected);
    }
    let seen = SEEN.lock().unwrap().clone();
    assert_eq!(seen, ["console_io write bytes=1", "mmuext_op count=1 tlb_flush_all"]);
}

/// Issues a multicall of three updates and a flush. Xen refuses the second update.
fn batch_of_three(guest: &FakeGuest, xen: &impl Xen) -> Result<(), MulticallError> {
    let zap = |pfn| [MmuUpdate::page_table(guest.entry(Pfn::new(pfn)).get(), Pte::NOT_PRESENT)];
    let (first, last) = (zap(600), zap(601));
    let flush = [MmuExtOp::tlb_flush_all()];
    let bad = Pte::new(Mfn::new(1 << 30), guest.flags());
    let mut batch = Multicall::<4>::new();
    batch
        .mmu_update(&first)
        .update_va_mapping(guest.address(Pfn::new(602)), bad, UvmFlags::empty())
        .mmu_update(&last)
        .mmuext_op(&flush);
    assert!(batch.is_full());
    // SAFETY: the model's frames contain no Rust object.
    unsafe { batch.issue(xen) }
}

#[test]
fn a_multicall_names_the_entry_that_failed() {
    let guest = FakeGuest::new(1024);
    let error = batch_of_three(&guest, guest.xen()).unwrap_err();
    assert_eq!(error, MulticallError { index: Some(1), failed: 1, errno: XenErrno::EPERM });
    let present = |pfn| guest.linear_entry(Pfn::new(pfn)).is_present();
    assert_eq!(
        [600, 601, 602].map(present),
        [false, false, true],
        "Xen runs the entries after the failed one"
    );
    assert_eq!(guest.xen().take_log().len(), 5);
}

#[test]
fn a_multicall_that_xen_refuses_names_no_entry() {
    let guest = FakeGuest::new(1024);
    guest.xen().arm(Fault::refuse(1, XenErrno::EFAULT));
    let error = batch_of_three(&guest, guest.xen()).unwrap_err();
    assert_eq!(error, MulticallError { index: None, failed: 4, errno: XenErrno::EFAULT });
    guest.check_whole();
}

#[test]
fn a_traced_multicall_is_one_call() {
    let guest = FakeGuest::new(1024);
    let traced = Traced::new(guest.xen().clone(), clock);
    assert!(batch_of_three(&guest, &traced).is_err());
    let row = CallTotals { calls: 1, sub_operations: 4, flushes: 1, errors: 0 };
    assert_eq!(traced.summary().row(Hypercall::Multicall), row);
    let mut done = None;
    traced.recent(|entry| done = entry.done);
    assert_eq!(done, Some(3), "the entries that succeeded");
}

#[test]
fn a_tracer_reports_nested_spans_to_the_hypervisor_in_order() {
    let guest = FakeGuest::new(512);
    let traced = Traced::new(guest.xen().clone(), clock);
    let (operation, phase) = (Span::Operation("test"), Span::Phase(Phase::Purge));
    let answer = traced
        .within(operation, || traced.within(phase, || traced.xen_version(VersionOp::Version)));
    assert_eq!(answer, Ok(4 << 16 | 17), "the closure's result");
    assert_eq!(
        guest.xen().take_marks(),
        [Mark::Enter(operation), Mark::Enter(phase), Mark::Leave(phase), Mark::Leave(operation)]
    );
}

#[test]
fn an_entry_has_the_count_that_the_call_reports() {
    let guest = FakeGuest::new(1024);
    let traced = Traced::new(guest.xen().clone(), clock);
    let zap = |pfn| MmuUpdate::page_table(guest.entry(Pfn::new(pfn)).get(), Pte::NOT_PRESENT);
    let bad = Pte::new(Mfn::new(1 << 30), guest.flags());
    let refused = MmuUpdate::page_table(guest.entry(Pfn::new(602)).get(), bad);
    let last = || {
        let mut last = None;
        traced.recent(|entry| last = Some((entry.done, entry.to_string())));
        last.unwrap()
    };
    let done = &mut 0;
    // SAFETY: the model's frames hold no Rust objects.
    let answer = unsafe { traced.mmu_update(&[zap(600), zap(601), refused], done, DomId::SELF) };
    assert_eq!((answer, *done), (Err(XenErrno::EPERM), 2));
    assert_eq!(last().0, Some(2));
    assert!(last().1.ends_with(" -> -EPERM done=2"), "{}", last().1);
    let flush = MmuExtOp::tlb_flush_all();
    // SAFETY: a flush changes no mapping, and Xen refuses the other operation.
    let answer =
        unsafe { traced.mmuext_op(&[flush, MmuExtOp::unpin(Mfn::new(2))], done, DomId::SELF) };
    assert!(answer.is_err());
    assert_eq!(last().0, Some(1));
    traced.xen_version(VersionOp::Version).unwrap();
    assert_eq!(last().0, None);
    let (mut input, mut output) = ([guest.mfn(Pfn::new(700)).unwrap().number()], [700]);
    let extents = |list: &mut [u64]| MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: 1,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let mut exchange = MemoryExchange {
        input: extents(&mut input),
        output: extents(&mut output),
        nr_exchanged: 0,
    };
    // SAFETY: the lists have one entry each. The frame is mapped, so Xen refuses it.
    let answer = unsafe { traced.memory_op(MemoryOp::Exchange(&mut exchange)) };
    assert!(answer.is_err());
    assert_eq!(last().0, Some(0));
}

#[test]
fn a_call_that_the_hypervisor_does_not_know_returns_enosys() {
    let guest = FakeGuest::new(512);
    let traced = Traced::new(guest.xen().clone(), clock);
    assert_eq!(traced.physdev_op(PhysdevOp::SetIopl(1)), Err(XenErrno::ENOSYS));
    let row = CallTotals { calls: 1, sub_operations: 1, flushes: 0, errors: 1 };
    assert_eq!(traced.summary().row(Hypercall::PhysdevOp), row);
}
