//! Logs as Xen and a guest print them, whole, split, mixed and damaged.

use xen_contig_trace::{
    Boot, CallResult, FrameRun, LossKind, Phase, SpanKind, Trace, TraceReader, TracedCall,
};

fn log(name: &str) -> Trace {
    Trace::parse(&bytes(name))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/logs/{name}.log", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn call(boot: &Boot, vcpu: u32, number: u64) -> &TracedCall {
    boot.calls.iter().find(|call| (call.vcpu, call.number) == (vcpu, number)).unwrap()
}

fn losses(trace: &Trace) -> Vec<(usize, String)> {
    trace.losses().map(|loss| (loss.line, loss.kind.to_string())).collect()
}

/// The names of the spans around a call, the outermost first.
fn path(boot: &Boot, call: &TracedCall) -> String {
    let mut names: Vec<_> = boot.ancestors(call.parent).map(|span| span.name.as_str()).collect();
    names.reverse();
    names.join("/")
}

#[test]
fn a_serial_log_has_calls_frames_and_spans() {
    let trace = log("serial");
    assert_eq!(losses(&trace), []);
    let [boot] = trace.boots.as_slice() else { panic!("one boot") };
    assert_eq!((boot.line, boot.domain), (6, None));
    assert_eq!((boot.vcpus, boot.ring), (Some(1), Some(4096)));
    assert!(boot.traced.is_empty());
    assert_eq!(boot.first_test(), Some(8_033_000_000));

    let exchange = call(boot, 0, 10);
    assert_eq!((exchange.start, exchange.duration), (8_033_180_000, 90_500));
    assert_eq!(exchange.phase, Some(Phase::DetachExchange));
    assert_eq!(
        (exchange.hypercall.as_str(), exchange.operation()),
        ("multicall", Some("exchange"))
    );
    assert_eq!(
        (exchange.argument("mmu_update"), exchange.argument("bits")),
        (Some("8"), Some("64"))
    );
    assert_eq!((&exchange.result, exchange.done), (&CallResult::Value(0), Some(3)));
    assert_eq!(exchange.frames_in.runs, [FrameRun { first: 0x7d000, count: 8 }]);
    assert_eq!(exchange.frames_at.runs, [FrameRun { first: 0x400, count: 8 }]);
    assert_eq!(exchange.frames_out.runs, [FrameRun { first: 0x7fc50, count: 8 }]);
    assert_eq!(path(boot, exchange), "stale-alias/alloc_coherent/detach+exchange");
    assert_eq!(boot.test_of(exchange).unwrap().duration, Some(2_000_000));
    let operation = boot.operation_of(exchange).unwrap();
    assert_eq!((operation.start, operation.duration), (8_033_170_000, Some(400_000)));
    assert_eq!(operation.arguments[0].number(), Some(32_768));

    assert!(call(boot, 0, 7).frames_out.is_empty());
    assert_eq!(path(boot, call(boot, 0, 9)), "stale-alias");
    assert_eq!(path(boot, call(boot, 0, 5)), "");
    assert_eq!(boot.summary.len(), 3);
}

#[test]
fn results_are_numbers_errors_and_versions() {
    let trace = log("serial");
    let boot = &trace.boots[0];
    assert_eq!(call(boot, 0, 0).result, CallResult::Version { major: 4, minor: 17 });
    assert_eq!(call(boot, 0, 1).result.errno(), Some("ENOENT"));
    assert_eq!(call(boot, 0, 5).result, CallResult::Value(479_428));
    assert!(call(boot, 0, 15).is_error() && !call(boot, 0, 10).is_error());
    // A multicall answers 0, and one of its three entries failed.
    let multicall = call(boot, 0, 7);
    assert_eq!((multicall.is_error(), multicall.errno()), (true, Some("EINVAL")));
    assert_eq!(
        (multicall.result.clone(), multicall.failed.as_ref().unwrap().entry),
        (CallResult::Value(0), 2)
    );
}

#[test]
fn folded_calls_leave_no_gap() {
    let trace = log("serial");
    let folded = call(&trace.boots[0], 0, 2);
    assert_eq!((folded.times, folded.duration), (3, 9_000));
    assert_eq!(trace.losses().count(), 0);
}

#[test]
fn the_lines_of_a_list_of_frames_are_one_list() {
    let trace = log("serial");
    let exchange = call(&trace.boots[0], 0, 14);
    assert_eq!((exchange.frames_in.runs.len(), exchange.frames_in.frames()), (11, 24));
    assert_eq!(exchange.frames_in.runs[1], FrameRun { first: 0x205, count: 1 });
    assert_eq!(exchange.frames_out.frames(), 24);
}

#[test]
fn lines_that_xen_split_are_joined() {
    let trace = log("dmesg");
    assert_eq!(losses(&trace), []);
    let boot = &trace.boots[0];
    assert_eq!((boot.domain, boot.calls.len()), (Some(1), 4));
    assert_eq!(boot.traced, ["memory_op", "hvm_op"]);
    let split = call(boot, 0, 10);
    assert_eq!((split.result.clone(), split.done), (CallResult::Value(8), Some(8)));
    assert!(split.argument("flags").unwrap().ends_with("|and_another_long_one_to_fill_it"));
    assert_eq!(split.frames_in.frames(), 8);
    // This one is exactly as long as Xen's buffer: an empty line follows.
    assert_eq!(call(boot, 0, 11).done, Some(1));
}

#[test]
fn a_filter_in_the_guest_makes_no_gap() {
    let trace = log("dmesg");
    assert_eq!(call(&trace.boots[0], 0, 4).number, 4);
    assert_eq!(trace.losses().count(), 0);
}

#[test]
fn a_line_that_xen_interrupted_is_joined() {
    let trace = log("interrupted");
    let boot = &trace.boots[0];
    let joined = call(boot, 0, 0);
    assert_eq!((joined.start, joined.line), (2_000_000_000, 2));
    assert_eq!(joined.result.errno(), Some("EINVAL"));
    assert_eq!(boot.calls.iter().map(|call| call.number).collect::<Vec<_>>(), [0, 1, 2, 4]);
    let found = losses(&trace);
    assert_eq!(found[0], (7, "the call has no result (`->`)".to_owned()));
    assert_eq!(found[1], (9, "1 call is missing in the log".to_owned()));
}

#[test]
fn another_vcpu_works_inside_of_the_test() {
    let trace = log("vcpus");
    assert_eq!(losses(&trace), []);
    let boot = &trace.boots[0];
    assert_eq!(boot.vcpu_count(), 2);
    assert_eq!(path(boot, call(boot, 0, 1)), "two-allocate/alloc_coherent/exchange");
    let other = call(boot, 1, 1);
    assert_eq!(path(boot, other), "two-allocate/alloc_coherent/exchange");
    assert_eq!(boot.operation_of(other).unwrap().vcpu, 1);
    assert_eq!(boot.test_of(other).unwrap().vcpu, 0);
    assert_eq!(other.frames_out.frames(), 2);
    assert_eq!(path(boot, call(boot, 1, 2)), "two-allocate");
    assert_eq!(path(boot, call(boot, 1, 0)), "");
}

#[test]
fn every_loss_is_named_with_its_line() {
    let trace = log("lost");
    let boot = &trace.boots[0];
    let overwritten = LossKind::Overwritten { records: 1234, calls: Some(911) };
    assert_eq!((boot.losses[0].line, &boot.losses[0].kind), (4, &overwritten));
    assert_eq!(boot.losses[0].time, Some(5_000_000_000));
    let found = losses(&trace);
    let unreadable: Vec<_> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(unreadable, [4, 7, 8, 9, 10, 10, 14, 16, 17]);
    assert!(found[1].1.contains("is not a duration"), "{found:?}");
    assert_eq!(found[2].1, "1 call is missing in the log");
    assert_eq!(found[5].1, "2 calls are missing in the log");
    assert_eq!(found[6].1, "60 frames of call #918 are not shown");
    assert!(found[7].1.contains("which was not read"), "{found:?}");
    assert_eq!(call(boot, 0, 918).frames_in.frames(), 64);
}

#[test]
fn a_span_is_known_by_its_end_alone_or_by_its_begin_alone() {
    let trace = log("lost");
    let boot = &trace.boots[0];
    assert_eq!(boot.test_of(call(boot, 0, 912)).unwrap().name, "lost-its-begin");
    assert_eq!(path(boot, call(boot, 0, 918)), "cut-in-the-middle/alloc_coherent");
    let cut = boot.spans.iter().find(|span| span.name == "cut-in-the-middle").unwrap();
    assert_eq!((cut.kind, cut.duration), (SpanKind::Test, None));
    assert!(boot.test_of(call(boot, 0, 914)).is_none());
}

#[test]
fn a_log_has_several_boots() {
    let trace = log("boots");
    let boots: Vec<_> = trace.boots.iter().map(|b| (b.line, b.domain, b.calls.len())).collect();
    assert_eq!(boots, [(1, None, 2), (4, None, 2), (9, Some(1), 2), (10, Some(2), 2)]);
    assert_eq!(losses(&trace), [(1, "the trace has no version line".to_owned())]);
    for (boot, test) in trace.boots.iter().skip(1).zip(["first", "second", "third"]) {
        assert_eq!(path(boot, &boot.calls[1]), test);
    }
}

#[test]
fn a_boot_without_its_version_line_is_another_boot() {
    let log = b"# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 #0 @9.000000000 +1 - sched_op yield -> 0\n\
        # trace v0 #1 @9.000000001 +1 - sched_op yield -> 0\n\
        # trace v0 #0 @1.000000000 +1 - sched_op yield -> 0\n";
    let trace = Trace::parse(log);
    assert_eq!(trace.boots.len(), 2);
    assert_eq!(losses(&trace), [(4, "the trace has no version line".to_owned())]);
}

#[test]
fn a_lost_line_may_follow_its_gap() {
    let log = b"# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 #5 @9.000000000 +1 - sched_op yield -> 0\n\
        # trace v0 lost=7\n";
    let trace = Trace::parse(log);
    let kinds: Vec<_> = trace.losses().map(|loss| &loss.kind).collect();
    assert_eq!(kinds, [&LossKind::Overwritten { records: 7, calls: Some(5) }]);
}

#[test]
fn another_version_is_read_and_named() {
    let trace = Trace::parse(b"# trace version=2 vcpus=1 ring=8 calls=all\n");
    assert_eq!(trace.boots.len(), 1);
    let kinds: Vec<_> = trace.losses().map(|loss| &loss.kind).collect();
    assert_eq!(kinds, [&LossKind::UnknownVersion { version: 2 }]);
}

#[test]
fn a_log_without_a_trace_has_no_boot() {
    let trace = Trace::parse(b"(XEN) hello\n# trace: the last hypercalls, oldest first\n");
    assert!(trace.boots.is_empty() && trace.losses().count() == 0);
    let old = Trace::parse(b"# trace #000318 @000835301594 memory_op exchange in=0 -> 0\n");
    assert!(old.boots.is_empty());
    assert_eq!(losses(&old), [(1, "`#000318` is not a vCPU, such as `v0`".to_owned())]);
}

#[test]
fn pieces_of_any_length_give_the_same_trace() {
    for name in ["serial", "dmesg", "vcpus", "lost", "boots", "interrupted", "panic"] {
        let whole = log(name);
        for size in [1, 7, 64, 4096] {
            let mut reader = TraceReader::new();
            for piece in bytes(name).chunks(size) {
                reader.feed(piece);
                if size > 7 {
                    reader.trace();
                }
            }
            assert_eq!(reader.finish(), whole, "{name} in pieces of {size}");
        }
    }
}

/// Reads one line in a trace and returns why it could not be read.
fn reason(line: &str) -> Option<String> {
    let log = format!("# trace version=1 vcpus=1 ring=8 calls=all\n# trace {line}\n");
    Trace::parse(log.as_bytes()).losses().next().map(|loss| loss.kind.to_string())
}

#[test]
fn a_line_that_lost_a_part_is_not_read() {
    let call =
        "v0 #0 @1.000000000 +41250 exchange memory_op exchange in=8 -> -EINVAL done=0 times=2";
    assert_eq!(reason(call), None);
    for (part, damaged, cause) in [
        ("v0", "v", "is not a vCPU"),
        ("v0", "v9999", "is not a vCPU"),
        ("#0", "#", "the number of the call"),
        ("#0", "#0x1", "the number of the call"),
        ("@1.000000000", "@1.00000000", "is not a time"),
        ("@1.000000000", "@.000000000", "is not a time"),
        ("@1.000000000", "1.000000000", "is not a time"),
        ("+41250", "+", "is not a duration"),
        ("+41250", "+4 1250", "is not a phase"),
        ("exchange memory_op", "memory_op", "is not a phase"),
        ("exchange memory_op", "exchange MEMORY", "is not the name of a hypercall"),
        (" -> ", " ", "has no result"),
        ("-EINVAL", "-EINval", "is not the result"),
        ("-EINVAL", "-", "is not the result"),
        ("done=0", "done=", "`done`"),
        ("done=0", "one", "after the result"),
        ("done=0", "failed=EINVAL", "is not a failed entry"),
        ("done=0", "failed=1:0", "is not a failed entry"),
        ("times=2", "times=-2", "`times`"),
    ] {
        let line = call.replacen(part, damaged, 1);
        assert!(
            reason(&line).is_some_and(|reason| reason.contains(cause)),
            "{line}: {:?}",
            reason(&line)
        );
    }
    for line in [
        "v0 @1.000000000 begin",
        "v0 @1.000000000 begin test",
        "v0 @1.000000000 begin alloc_coherent 4096",
        "v0 @1.000000000 +5 end",
        "v0 @1.000000000 +5 ends test one",
        "v0 @1.000000000 +5 phase unknown calls=1",
        "v0 @1.000000000 +5 phase zero calls=x",
        "v0 lost=",
        "v0 lost=5 6",
        "version=one",
    ] {
        assert!(reason(line).is_some(), "{line}");
    }
}

#[test]
fn a_damaged_list_of_frames_is_not_read() {
    let call = "v0 #0 @1.000000000 +1 - memory_op exchange -> 0\n# trace v0 #0";
    assert_eq!(reason(&format!("{call} in 0x1 0x2+3")), None);
    for list in
        ["in 1", "in 0x", "in 0x1+", "in 0x1+0", "at 0x1+0x2", "out 0x1 cut=", "in cut=3 0x1"]
    {
        assert!(reason(&format!("{call} {list}")).is_some(), "{list}");
    }
}

#[test]
fn numbers_too_large_are_damage() {
    for line in [
        "v0 #0 @99999999999.000000000 +1 - sched_op yield -> 0",
        "v0 #0 @18446744073.999999999 +1 - sched_op yield -> 0",
        "v0 #0 @1.000000000 +18446744073709551616 - sched_op yield -> 0",
        "v0 #18446744073709551616 @1.000000000 +1 - sched_op yield -> 0",
        "v0 #0 @1.000000000 +1 - sched_op yield -> 9223372036854775808",
        "v0 lost=18446744073709551616",
    ] {
        assert!(reason(line).is_some(), "{line}");
    }
    let largest =
        "v0 #0 @18446744073.709551615 +18446744073709551615 - sched_op yield -> 0 times=9";
    assert_eq!(reason(largest), None);
}

#[test]
fn a_word_of_a_newer_kernel_is_ignored() {
    assert_eq!(reason("v0 #0 @1.000000000 +1 - sched_op yield -> 0 done=1 new=5 times=2"), None);
}

#[test]
fn a_panic_repeats_records() {
    let trace = log("panic");
    assert_eq!(losses(&trace), []);
    let [boot] = trace.boots.as_slice() else { panic!("one boot") };
    assert_eq!(boot.calls.iter().map(|call| call.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(call(boot, 0, 1).frames_out.frames(), 1);
    let names: Vec<_> = boot.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["first", "alloc_coherent", "exchange", "misbehave-panic"]);
    assert_eq!(path(boot, call(boot, 0, 2)), "misbehave-panic");
}

#[test]
fn a_multicall_with_more_entries_than_its_line() {
    let log = "# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 #0 @1.000000000 +1 - multicall entries=9 mmu_update=1 … -> 0 done=9\n";
    let trace = Trace::parse(log.as_bytes());
    assert_eq!((trace.boots[0].calls[0].operation(), trace.losses().count()), (None, 0));
    assert!(log.contains(&trace.boots[0].calls[0].to_string()));
}

#[test]
fn a_summary_alone_is_a_boot_without_damage() {
    let trace = Trace::parse(b"(d1) # trace summary boot total 6 4\n");
    assert_eq!((trace.boots[0].domain, trace.boots[0].summary.len()), (Some(1), 1));
    assert_eq!(trace.losses().count(), 0);
}

#[test]
fn an_end_belongs_to_its_begin_although_the_clock_was_read_anew() {
    let log = b"# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 @1.000000000 begin test one\n\
        # trace v0 @1.000000007 +500 end test one calls=0\n";
    let spans = Trace::parse(log).boots[0].spans.clone();
    assert_eq!((spans.len(), spans[0].duration), (1, Some(500)));
}

#[test]
fn a_clock_that_stands_still_is_named_once() {
    let log = "# trace version=1 vcpus=2 ring=8 calls=all\n\
        # trace v0 #0 @0.000000000 +5 - sched_op yield -> 0\n\
        # trace v1 #0 @0.000000000 +5 - sched_op yield -> 0\n\
        # trace v0 #1 @0.000000000 +5 - sched_op yield -> 0\n\
        # trace v0 #2 @0.000000000 +5 - sched_op yield -> 0\n\
        # trace v0 #3 @1.000000000 +5 - sched_op yield -> 0\n";
    let trace = Trace::parse(log.as_bytes());
    assert_eq!(losses(&trace), [(4, "the clock of the guest stands still".to_owned())]);
}

#[test]
fn frames_of_a_call_that_was_overwritten_are_part_of_that_loss() {
    let log = b"# trace version=1 vcpus=1 ring=64 calls=all\n\
        # trace v0 lost=3\n\
        # trace v0 #1 in 0x7c000+8\n\
        # trace v0 #1 out 0x7d000+8\n\
        # trace v0 #2 @1.000000000 +5 - xen_version version -> 4.17\n";
    let trace = Trace::parse(log);
    let kinds: Vec<_> = trace.losses().map(|loss| loss.kind.clone()).collect();
    assert_eq!(kinds, [LossKind::Overwritten { records: 3, calls: Some(2) }]);
    assert!(trace.boots[0].calls[0].frames_in.is_empty());
}
