//! The tracer records every call and changes none. A multicall checks every result.

use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fake_xen::{Asked, FakeGuest, FakeXen, Fault, Logged, Mark, Snapshot};
use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{
    EventChannelOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, PhysdevOp,
    Port, Pte, SchedOp, UvmFlags, VcpuOp, VersionOp,
};
use hypercall::trace::{
    CallTotals, ErrorCount, Filter, Hypercall, Operation, Phase, Span, Timescale, TraceEntry,
    TraceHeader, TraceLine, TraceRecord,
};
use hypercall::{
    DomId, Multicall, MulticallError, PageTableFlags, TraceHost, Traced, Xen, XenErrno,
};
use xen_contig::addr::{AddressBits, Mfn, Order, Pfn};
use xen_contig::exchange::{Accounts, Capability, Lists, OnRefusal, Part, Placement};
use xen_contig::paging::LinearMapping;

/// A clock that advances by one with each reading, and memory that can be read.
#[derive(Default)]
struct Host(AtomicU64);

impl TraceHost for Host {
    fn now(&self) -> u64 {
        self.0.fetch_add(1, Relaxed)
    }

    fn read(&self, word: *const u64) -> Option<u64> {
        // SAFETY: the tests pass lists that exist, or null.
        (!word.is_null()).then(|| unsafe { word.read() })
    }
}

/// Returns a tracer with a ring of `records` records.
fn tracer(guest: &FakeGuest, records: usize) -> Traced<FakeXen, Host> {
    let traced = Traced::new(guest.xen().clone(), Host::default());
    traced.record_into(vec![None; records].leak());
    traced
}

/// Returns a tracer that records everything.
fn detailed(guest: &FakeGuest) -> Traced<FakeXen, Host> {
    let traced = tracer(guest, 256);
    traced.set_details(true);
    traced
}

fn take_all(traced: &Traced<FakeXen, Host>) -> Vec<TraceRecord> {
    iter::from_fn(|| traced.take()).collect()
}

/// Returns the lines of a trace, without vCPU, number and times.
fn take_lines(traced: &Traced<FakeXen, Host>) -> Vec<String> {
    let line = |record: TraceRecord| {
        let time = &Timescale::NANOSECONDS;
        let line = TraceLine { vcpu: 0, record: &record, time }.to_string();
        let words = line.strip_prefix("# trace v0 ").unwrap().split(' ');
        let words: Vec<&str> = words.skip_while(|word| word.starts_with(['#', '@', '+'])).collect();
        words.join(" ")
    };
    take_all(traced).into_iter().map(line).collect()
}

/// Returns the last call.
fn last_call(traced: &Traced<FakeXen, Host>) -> TraceEntry {
    let mut last = None;
    assert!(traced.recent(1, |record| last = Some(*record)));
    match last {
        Some(TraceRecord::Call(entry)) => entry,
        other => panic!("{other:?}"),
    }
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
    let run = |records: Option<usize>, details| -> (Vec<String>, Vec<Logged>, Snapshot) {
        let guest = FakeGuest::new(2048);
        let seen = match records {
            Some(records) => {
                let traced = tracer(&guest, records);
                traced.set_details(details);
                script(&guest, &traced)
            }
            None => script(&guest, guest.xen()),
        };
        guest.check_whole();
        (seen, guest.xen().take_log(), guest.snapshot())
    };
    let untraced = run(None, false);
    for records in [0, 1, 256] {
        assert_eq!(run(Some(records), false), untraced, "{records} records");
        assert_eq!(run(Some(records), true), untraced, "{records} records, with details");
    }
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
    let traced = tracer(&guest, 0);
    script(&guest, &traced);
    let log = calls_of_the_guest(guest.xen().take_log());
    let summary = traced.summary();
    let row = |hypercall| CallTotals { ticks: 0, ..summary.row(hypercall) };
    let count = |which: fn(&Asked) -> bool| {
        let calls = || log.iter().filter(|call| which(&call.asked));
        let flushes = calls().filter(|call| call.asked.flushes()).count() as u64;
        let errors = calls().filter(|call| call.answer.is_err()).count() as u64;
        (calls().count() as u64, flushes, errors)
    };
    let mmu_update = row(Hypercall::MmuUpdate);
    let CallTotals { calls, flushes, errors, .. } = mmu_update;
    assert_eq!((calls, flushes, errors), count(|asked| matches!(asked, Asked::MmuUpdate { .. })));
    // One call with two entries fails at its second one, and each of three attaches has 64 entries.
    // Multicalls make the other updates.
    let expected = CallTotals { calls: 4, done: 1 + 3 * 64, flushes: 0, errors: 1, ticks: 0 };
    assert_eq!(mmu_update, expected);
    let mmuext = CallTotals { calls: 1, done: 0, flushes: 0, errors: 1, ticks: 0 };
    assert_eq!(row(Hypercall::MmuExtOp), mmuext);
    assert_eq!(summary.row(Hypercall::UpdateVaMapping).calls, 1);
    // The exchange of a run with an alias fails: it is one of the three entries of a batch.
    let multicall = CallTotals { calls: 4, done: 3 * 3 - 1 + 1, flushes: 3, errors: 1, ticks: 0 };
    assert_eq!(row(Hypercall::Multicall), multicall);
    assert_eq!(summary.row(Hypercall::SetTrapTable), CallTotals::default());
    assert_eq!(summary.total().calls, log.len() as u64);
    let refused = |hypercall, errno| ErrorCount { hypercall, errno, calls: 1 };
    assert!(summary.errors().contains(&refused(Hypercall::MmuUpdate, XenErrno::EPERM)));
    assert!(summary.errors().contains(&refused(Hypercall::Multicall, XenErrno::EINVAL)));
    // Each call takes one tick.
    assert_eq!(summary.total().ticks, summary.total().calls);
    let table = summary.table("tests", &Timescale::NANOSECONDS).to_string();
    assert!(table.contains("tests mmu_update") && table.contains("193"), "{table}");
    assert!(table.contains("error tests multicall -EINVAL 1"), "{table}");
    assert!(!table.contains("set_trap_table"), "{table}");
}

#[test]
fn totals_of_two_parts_add_up() {
    let guest = FakeGuest::new(2048);
    let traced = tracer(&guest, 0);
    script(&guest, &traced);
    let before = traced.summary();
    script(&guest, &traced);
    let after = traced.summary();
    let part = after.since(&before);
    assert!(part.total().calls > 0);
    let mut sum = before.clone();
    sum.add(&part);
    assert_eq!(sum, after);
    assert_eq!(after.since(&after), Default::default());
}

#[test]
fn an_exchange_is_recorded_with_its_frames_and_phases() {
    let guest = FakeGuest::new(2048);
    let traced = detailed(&guest);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger_via(&traced, &guest, &accounts, Order::MAX);
    let run = guest.run(1024, 8);
    let old = run.iter().map(|pfn| format!(" {}", guest.mfn(pfn).unwrap())).collect::<String>();
    assert!(exchanger.acquire(run, AddressBits::new(24).unwrap(), &mut [0; 8]).is_ok());
    let new = guest.mfn(Pfn::new(1024)).unwrap().number();
    let [first, last] = [1024, 1031].map(|pfn| guest.entry(Pfn::new(pfn)).get());
    assert_eq!(
        take_lines(&traced),
        [
            "phase plan calls=0".to_string(),
            "phase purge calls=0".to_string(),
            "phase zero calls=0".to_string(),
            "detach+exchange multicall entries=3 mmu_update=8 mmuext_op=1:tlb_flush_all exchange \
             in=8 in_order=0 out=1 out_order=3 bits=24 -> 0 done=3"
                .to_string(),
            format!("in{old}"),
            "at 0x400+8".to_string(),
            format!("out {new:#x}+8"),
            "phase detach+exchange calls=1".to_string(),
            format!(
                "attach mmu_update count=8 entry={first:#x}..{last:#x} \
                 pte={new:#x}..{:#x}|P|W|NX -> 0 done=8",
                new + 7
            ),
            "phase attach calls=1".to_string(),
        ]
    );
    let summary = traced.summary();
    let attach = summary.phase(Phase::Attach);
    assert_eq!((attach.times, attach.calls, attach.xen_ticks), (1, 1, 1));
    assert!(attach.ticks > attach.xen_ticks);
    assert_eq!(summary.phase(Phase::Exchange), Default::default());
    let table = summary.phase_table(&Timescale::NANOSECONDS).to_string();
    assert!(table.contains("phase attach") && !table.contains("phase exchange"), "{table}");
}

#[test]
fn a_refused_exchange_has_no_frames_from_xen() {
    let guest = FakeGuest::new(2048);
    let traced = detailed(&guest);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger_via(&traced, &guest, &accounts, Order::MAX);
    guest.alias(3, Pfn::new(1025));
    let result = exchanger.acquire(guest.run(1024, 8), AddressBits::UNLIMITED, &mut [0; 8]);
    assert!(result.is_err());
    let lines = take_lines(&traced);
    let refused = lines.iter().position(|line| line.starts_with("detach+exchange")).unwrap();
    assert!(lines[refused].ends_with("-> 0 done=2 failed=2:-EINVAL"), "{lines:#?}");
    assert!(lines[refused + 1].starts_with("in 0x"), "{lines:#?}");
    assert_eq!(lines[refused + 2], "at 0x400+8");
    assert!(!lines.iter().any(|line| line.starts_with("out")), "{lines:#?}");
    guest.unalias(3);
}

#[test]
fn an_exchange_that_stops_midway_has_the_frames_that_moved() {
    let guest = FakeGuest::new(2048);
    let traced = detailed(&guest);
    let accounts = Accounts::new();
    let exchanger = guest.exchanger_via(&traced, &guest, &accounts, Order::MAX);
    let below = Placement::below(AddressBits::new(24).unwrap());
    let part = Part::gather(0, 2, Order::new(3).unwrap(), below);
    let lists = Lists { backing: &mut [0; 16], extents: &mut [0; 2] };
    // Xen refuses a frame of the second extent.
    guest.alias(3, Pfn::new(1033));
    let answer = exchanger.exchange(guest.run(1024, 16), &[part], OnRefusal::Return, lists);
    assert_eq!(answer.unwrap().done, 8);
    let new = guest.mfn(Pfn::new(1024)).unwrap().number();
    let lines = take_lines(&traced);
    let moved = lines.iter().position(|line| line.starts_with("detach+exchange")).unwrap();
    assert!(lines[moved].ends_with("-> 0 done=2 failed=2:-EINVAL"), "{lines:#?}");
    let out: Vec<_> = lines.iter().filter(|line| line.starts_with("out")).collect();
    assert_eq!(out, [&format!("out {new:#x}+8")], "{lines:#?}");
    guest.unalias(3);
}

/// Issues an exchange that Xen refuses.
fn exchange_lists(xen: &impl Xen, input: &mut [u64], output: *mut u64, exchanged: u64) {
    let list = |start, nr_extents| MemoryReservation {
        extent_start: start,
        nr_extents,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let count = input.len() as u64;
    let mut exchange = MemoryExchange {
        input: list(input.as_mut_ptr(), count),
        output: list(output, count),
        nr_exchanged: exchanged,
    };
    // SAFETY: the lists have the length that they declare. Xen refuses the argument before it uses them.
    assert!(unsafe { xen.memory_op(MemoryOp::Exchange(&mut exchange)) }.is_err());
}

#[test]
fn a_list_is_recorded_as_runs_up_to_a_bound_and_the_cut_is_named() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    let mut scattered: Vec<u64> = (0..200).map(|index| 0x100 + 2 * index).collect();
    (scattered[1], scattered[2]) = (0x101, 0x102);
    exchange_lists(&traced, &mut scattered.clone(), scattered.as_mut_ptr(), 201);
    let lines = take_lines(&traced);
    assert!(lines[0].contains("in=200") && lines[0].contains("exchanged=201"), "{}", lines[0]);
    assert_eq!(lines[1], "in 0x100+3 0x106 0x108 0x10a 0x10c 0x10e 0x110 0x112");
    let runs: usize = lines[1..9].iter().map(|line| line.split(' ').skip(1).count()).sum();
    assert!(lines[8].ends_with(" cut=134") && runs == 65, "{lines:#?}");
    assert!(lines[9].starts_with("at 0x100+3") && lines[9].ends_with("cut=190"), "{lines:#?}");
    assert_eq!(lines.len(), 10);
}

#[test]
fn a_list_that_cannot_be_read_costs_its_frames_alone() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    exchange_lists(&traced, &mut [7, 8], std::ptr::null_mut(), 3);
    let lines = take_lines(&traced);
    assert_eq!(lines[1..], ["in 0x7+2", "at cut=2"]);
}

#[test]
fn a_list_with_more_frames_than_xen_can_count_is_not_read() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    let mut words = [7; 128];
    // No list has as many frames as this one declares.
    let list = MemoryReservation {
        extent_start: words.as_mut_ptr(),
        nr_extents: u64::MAX >> 8,
        extent_order: 9,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let mut exchange = MemoryExchange { input: list, output: list, nr_exchanged: 0 };
    // SAFETY: Xen refuses the argument before it uses the lists.
    assert!(unsafe { traced.memory_op(MemoryOp::Exchange(&mut exchange)) }.is_err());
    assert_eq!(take_lines(&traced).len(), 1);
}

#[test]
fn the_ring_keeps_the_last_records_and_counts_the_lost_ones() {
    let guest = FakeGuest::new(512);
    let traced = tracer(&guest, 64);
    let send = |ports: Range<u32>| {
        for port in ports {
            traced.event_channel_op(EventChannelOp::Send(Port(port))).unwrap();
        }
    };
    let recent = || {
        let mut sequence = vec![];
        assert!(traced.recent(64, |record| match record {
            TraceRecord::Call(entry) => sequence.push(entry.sequence),
            other => panic!("{other:?}"),
        }));
        sequence
    };
    send(0..10);
    assert_eq!((recent(), traced.take_lost(), traced.waiting()), ((0..10).collect(), 0, 10));
    assert_eq!(take_all(&traced).len(), 10);
    assert_eq!(recent(), (0..10).collect::<Vec<_>>(), "a panic sees records that were taken");
    send(0..100);
    assert_eq!((recent(), traced.take_lost()), ((46..110).collect(), 36));
    assert_eq!(traced.take_lost(), 0);
    // A larger ring gets what was not taken.
    traced.record_into(vec![None; 128].leak());
    send(0..10);
    let rest = take_lines(&traced);
    assert_eq!((rest.len(), traced.take_lost(), traced.calls()), (74, 0, 120));
    assert_eq!(rest[73], "- event_channel_op send port=9 -> 0");
    assert_eq!(traced.capacity(), 128);
    assert!(traced.next_time().is_none());
}

#[test]
fn the_filter_selects_calls_and_batches_of_them() {
    let guest = FakeGuest::new(1024);
    let traced = detailed(&guest);
    let filter = Filter::from_iter([Hypercall::MmuExtOp]);
    traced.set_filter(filter);
    assert_eq!((filter.to_string(), Filter::ALL.to_string()), ("mmuext_op".into(), "all".into()));
    let _seen = traced.xen_version(VersionOp::Version);
    assert!(batch_of_three(&guest, &traced).is_err());
    let kinds = take_all(&traced).into_iter().map(|record| match record {
        TraceRecord::Call(entry) => entry.call.hypercall(),
        other => panic!("{other:?}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [Hypercall::Multicall]);
    assert_eq!(traced.summary().total().calls, 2, "the totals count all calls");
    let header = TraceHeader { vcpus: 2, ring: 64, filter }.to_string();
    assert_eq!(header, "# trace version=1 vcpus=2 ring=64 calls=mmuext_op");
}

#[test]
fn the_filter_finds_every_entry_of_a_batch() {
    let guest = FakeGuest::new(1024);
    let traced = detailed(&guest);
    traced.set_filter(Filter::from_iter([Hypercall::MmuExtOp]));
    let flush = [MmuExtOp::tlb_flush_all()];
    let mut batch = Multicall::<8>::new();
    for pfn in 600..606 {
        let entry = Pte::new(guest.mfn(Pfn::new(pfn)).unwrap(), guest.flags());
        batch.update_va_mapping(guest.address(Pfn::new(pfn)), entry, UvmFlags::empty());
    }
    batch.mmuext_op(&flush);
    // SAFETY: each frame is mapped where it was.
    assert_eq!(unsafe { batch.issue(&traced) }, Ok(()));
    let lines = take_lines(&traced);
    assert!(lines.len() == 1 && lines[0].starts_with("- multicall entries=7"), "{lines:#?}");
}

#[test]
fn equal_calls_in_a_row_are_one_record() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    for port in [1, 1, 1, 2, 1] {
        traced.event_channel_op(EventChannelOp::Send(Port(port))).unwrap();
    }
    let records = take_all(&traced);
    let folded: Vec<_> = records
        .iter()
        .map(|record| match record {
            TraceRecord::Call(entry) => (entry.sequence, entry.times, entry.duration),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(folded, [(0, 3, 3), (3, 1, 1), (4, 1, 1)]);
    // Equal calls with another answer, or in another phase, stay apart.
    let refused = Fault::refuse(1, XenErrno::EFAULT);
    let send = || traced.event_channel_op(EventChannelOp::Send(Port(1)));
    guest.xen().arm(refused);
    let answers = (send(), send(), traced.within(Span::Phase(Phase::Zero), send));
    assert_eq!((answers.0.is_err(), answers.1.is_err(), answers.2.is_err()), (true, false, false));
    let lines = take_lines(&traced);
    assert_eq!((lines.len(), &lines[3][..]), (4, "phase zero calls=1"), "{lines:#?}");
    send().unwrap();
    assert_eq!(take_all(&traced).len(), 1);
    // A record that was taken does not change any more.
    traced.event_channel_op(EventChannelOp::Send(Port(1))).unwrap();
    assert_eq!(take_lines(&traced), ["- event_channel_op send port=1 -> 0"]);
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
    let traced = tracer(&guest, 1);
    assert!(batch_of_three(&guest, &traced).is_err());
    let row = CallTotals { calls: 1, done: 3, flushes: 1, errors: 1, ticks: 1 };
    assert_eq!(traced.summary().row(Hypercall::Multicall), row);
    let last = last_call(&traced);
    assert_eq!((last.done, last.failed), (Some(3), Some((1, XenErrno::EPERM))));
}

#[test]
fn nested_spans_are_recorded_and_reach_the_hypervisor_in_order() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    let operation = Operation { mask: 0xffff, boundary: 0x1000, ..Operation::new("trim", 4096) };
    let spans = [Span::Test("one"), Span::Operation(operation), Span::Phase(Phase::Purge)];
    let [test, operation, phase] = spans;
    let version = || traced.xen_version(VersionOp::Version);
    let answer = traced.within(test, || {
        // An operation without a hypercall leaves no record.
        traced.within(operation, || traced.within(phase, || ()));
        traced.within(operation, || traced.within(phase, version))
    });
    assert_eq!(answer, Ok(4 << 16 | 17), "the closure's result");
    assert_eq!(
        take_lines(&traced),
        [
            "begin test one",
            "begin trim bytes=4096 bits=16 boundary=2^12",
            "purge xen_version version -> 4.17",
            "phase purge calls=1",
            "end trim calls=1",
            "end test one calls=1"
        ]
    );
    let once =
        [Mark::Enter(operation), Mark::Enter(phase), Mark::Leave(phase), Mark::Leave(operation)];
    let marks = guest.xen().take_marks();
    assert_eq!((marks[0], marks[9]), (Mark::Enter(test), Mark::Leave(test)));
    assert_eq!((&marks[1..5], &marks[5..9]), (&once[..], &once[..]));
    assert_eq!(traced.summary().phase(Phase::Purge).times, 2);
}

/// A clock that steps back by one with each reading.
struct BackwardHost(AtomicU64);

impl TraceHost for BackwardHost {
    fn now(&self) -> u64 {
        self.0.fetch_sub(1, Relaxed)
    }
}

#[test]
fn a_clock_that_steps_back_makes_no_time() {
    for details in [false, true] {
        let guest = FakeGuest::new(512);
        let traced = Traced::new(guest.xen().clone(), BackwardHost(AtomicU64::new(1000)));
        traced.record_into(vec![None; 16].leak());
        traced.set_details(details);
        for port in [1, 1, 2] {
            traced
                .within(Span::Phase(Phase::Zero), || {
                    traced.event_channel_op(EventChannelOp::Send(Port(port)))
                })
                .unwrap();
        }
        let summary = traced.summary();
        assert_eq!((summary.total().calls, summary.total().ticks), (3, 0));
        assert_eq!(summary.phase(Phase::Zero).ticks, 0);
        while let Some(time) = traced.next_time() {
            assert!(time <= 1000);
            traced.take();
        }
    }
}

#[test]
fn a_span_outlives_the_ring_that_it_began_in() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    traced.within(Span::Test("one"), || {
        traced.within(Span::Operation(Operation::new("trim", 4096)), || {
            traced.record_into(&mut []);
        });
    });
    assert_eq!((traced.next_time(), traced.take(), traced.capacity()), (None, None, 0));
}

#[test]
fn spans_beyond_the_depth_of_a_tracer_are_ignored() {
    fn nest(traced: &Traced<FakeXen, Host>, depth: u32) {
        if depth > 0 {
            traced.within(Span::Phase(Phase::Zero), || nest(traced, depth - 1));
        }
    }
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    nest(&traced, 20);
    assert_eq!(traced.summary().phase(Phase::Zero).times, 8);
    nest(&traced, 1);
    assert_eq!(traced.summary().phase(Phase::Zero).times, 9);
}

/// Xen splits lines of a domain after 200 bytes.
#[test]
fn a_line_is_never_longer_than_190_bytes() {
    let guest = FakeGuest::new(512);
    let traced = detailed(&guest);
    // Numbers of frames and addresses have at most 52 bits.
    let wide = (1 << 52) - 2;
    let operation = Operation {
        name: "make_contiguous",
        bytes: 1 << 30,
        mask: wide,
        lowest: wide,
        align: 1 << 51,
        boundary: 1 << 51,
        segment: (1 << 30) - 1,
        segments: 1 << 18,
    };
    traced.within(Span::Operation(operation), || {
        let mut scattered: Vec<u64> = (0..9).map(|index| (1 << 51) - 2 * index).collect();
        exchange_lists(&traced, &mut scattered.clone(), scattered.as_mut_ptr(), 10);
        let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::NO_EXECUTE;
        let update = |last: u64| {
            MmuUpdate::page_table((1 << 46) - 8 * last, Pte::new(Mfn::new((1 << 34) - last), flags))
        };
        let mut done = 0;
        // SAFETY: Xen refuses the update, because the table does not exist.
        let refused = unsafe { traced.mmu_update(&[update(2), update(1)], &mut done, DomId::SELF) };
        assert!(refused.is_err());
    });
    let records = take_all(&traced);
    assert!(records.len() > 4);
    // After eleven days, with a billion calls.
    let time = &Timescale { nanoseconds: 1_000_000_000_000_000, ..Timescale::NANOSECONDS };
    for mut record in records {
        if let TraceRecord::Call(entry) = &mut record {
            (entry.sequence, entry.times, entry.duration) = (1 << 30, 1 << 20, 1 << 30);
        }
        let line = TraceLine { vcpu: 31, record: &record, time }.to_string();
        assert!(line.len() <= 190, "{} bytes: {line}", line.len());
    }
}

#[test]
fn an_entry_has_the_count_that_the_call_reports() {
    let guest = FakeGuest::new(1024);
    let traced = tracer(&guest, 64);
    let zap = |pfn| MmuUpdate::page_table(guest.entry(Pfn::new(pfn)).get(), Pte::NOT_PRESENT);
    let bad = Pte::new(Mfn::new(1 << 30), guest.flags());
    let refused = MmuUpdate::page_table(guest.entry(Pfn::new(602)).get(), bad);
    let done = &mut 0;
    // SAFETY: the model's frames hold no Rust objects.
    let answer = unsafe { traced.mmu_update(&[zap(600), zap(601), refused], done, DomId::SELF) };
    assert_eq!((answer, *done), (Err(XenErrno::EPERM), 2));
    let last = last_call(&traced);
    assert_eq!(last.done, Some(2));
    assert!(last.to_string().ends_with(" -> -EPERM done=2"), "{last}");
    let flush = MmuExtOp::tlb_flush_all();
    // SAFETY: a flush changes no mapping, and Xen refuses the other operation.
    let answer =
        unsafe { traced.mmuext_op(&[flush, MmuExtOp::unpin(Mfn::new(2))], done, DomId::SELF) };
    assert!(answer.is_err());
    assert_eq!(last_call(&traced).done, Some(1));
    traced.xen_version(VersionOp::Version).unwrap();
    assert_eq!(last_call(&traced).done, None);
    let mut input = [guest.mfn(Pfn::new(700)).unwrap().number()];
    exchange_lists(&traced, &mut input, &mut 700, 0);
    assert_eq!(last_call(&traced).done, Some(0));
}

#[test]
fn a_call_that_the_hypervisor_does_not_know_returns_enosys() {
    let guest = FakeGuest::new(512);
    let traced = tracer(&guest, 1);
    assert_eq!(traced.physdev_op(PhysdevOp::SetIopl(1)), Err(XenErrno::ENOSYS));
    let row = CallTotals { calls: 1, done: 0, flushes: 0, errors: 1, ticks: 1 };
    assert_eq!(traced.summary().row(Hypercall::PhysdevOp), row);
}
