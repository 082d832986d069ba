//! The parser of the kernel's command line, which needs no Xen.

#![forbid(unsafe_code)]

extern crate alloc;

#[path = "../kernel/src/command_line.rs"]
mod command_line;

#[path = "../kernel/src/bench/entry.rs"]
mod entry;

/// The items of the kernel's module of this name that the parser uses.
mod bench {
    pub use super::entry::{BadEntry, BenchEntry};
}

/// The items of the kernel's module of this name that the parser uses.
mod exit {
    /// The kernel's type of this name, without the methods that end the guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Exit {
        Poweroff,
        Reboot,
        Crash,
        Hold,
    }
}

use bench::BenchEntry;
use command_line::{Complaint, Options, ProbeBuffer, Selection, TraceLevel, TraceOptions, When};
use entry::BenchPattern;
use exit::Exit;
use hypercall::trace::{Filter, Hypercall};
use xen_contig::addr::{AddressBits, Order};
use xen_contig::exchange::Fuse;
use xen_contig::vmap::UnmapMode;

/// Parses a command line that is not cut.
fn parse(bytes: &[u8]) -> (Options, Vec<Complaint>) {
    command_line::parse(bytes, None)
}

fn complaint(text: &str) -> String {
    let (_, complaints) = parse(text.as_bytes());
    assert_eq!(complaints.len(), 1, "{text}: {complaints:?}");
    complaints[0].to_string()
}

#[test]
fn an_empty_line_means_all_tests() {
    let (options, complaints) = parse(b"  ");
    assert!(complaints.is_empty());
    assert_eq!((options.selftest, options.seed), (Selection::All, 0));
    assert_eq!((options.probe, options.vmap, options.exit), (None, None, None));
    let off = TraceOptions { level: TraceLevel::Off, filter: Filter::ALL, ring: None };
    assert_eq!(options.trace, off);
    assert_eq!((options.fuse, options.server), (Fuse::On, None));
    assert!(!options.report);
}

#[test]
fn every_option_is_parsed() {
    let text = "selftest=exchange-*,stale-alias trace=full ring=64 vmap=sync seed=0xff probe=9:30 \
                fuse=off server=10.0.2.2:7777 report=on exit=hold";
    let (options, complaints) = parse(text.as_bytes());
    assert_eq!(complaints, []);
    let full = TraceOptions { level: TraceLevel::Full, filter: Filter::ALL, ring: Some(64) };
    assert_eq!((options.trace, options.seed), (full, 255));
    assert_eq!((options.vmap, options.exit), (Some(UnmapMode::Sync), Some(Exit::Hold)));
    assert_eq!(options.fuse, Fuse::Off);
    assert_eq!(options.server, Some("10.0.2.2:7777".parse().unwrap()));
    assert!(options.report);
    assert_eq!(complaint("report=yes"), "bad value in \"report=yes\": expected on or off");
    let probe = ProbeBuffer { order: Order::new(9).unwrap(), bits: AddressBits::new(30).unwrap() };
    assert_eq!(options.probe, Some(probe));
    assert!(options.selftest.includes("exchange-order-3", When::Always));
    assert!(options.selftest.includes("stale-alias", When::Asked));
    assert!(!options.selftest.includes("address-bits", When::Always));
}

#[test]
fn a_full_trace_names_the_hypercalls_that_it_records() {
    let filter = |text: &[u8]| {
        let (options, complaints) = parse(text);
        assert_eq!((options.trace.level, complaints), (TraceLevel::Full, vec![]));
        options.trace.filter
    };
    assert_eq!(filter(b"trace=full"), Filter::ALL);
    let two = Filter::from_iter([Hypercall::MemoryOp, Hypercall::MmuUpdate]);
    assert_eq!(filter(b"trace=full:memory_op,mmu_update"), two);
    assert_eq!(
        complaint("trace=full:memory_op,memop"),
        "bad value in \"trace=full:memory_op,memop\": \"memop\" is not a hypercall; the names are \
         those of Xen's public/xen.h without __HYPERVISOR_, such as memory_op or mmu_update"
    );
    assert!(complaint("trace=full:").contains("\"\" is not a hypercall"));
    assert!(complaint("trace=summary:memory_op").ends_with("names of hypercalls, split by commas"));
    assert_eq!(complaint("ring=63"), "bad value in \"ring=63\": ring 63 is not in 64..=1048576");
    assert!(complaint("ring=1048577").contains("1048577 is not in"));
    assert!(complaint("ring=many").ends_with("expected a number of records"));
}

fn selection(text: &str) -> Selection {
    let (options, complaints) = parse(text.as_bytes());
    assert_eq!(complaints, [], "{text}");
    options.selftest
}

#[test]
fn a_minus_leaves_tests_out() {
    let most = selection("selftest=-edu-*,-storm");
    assert!(most.includes("address-bits", When::Always));
    assert!(!most.includes("edu-dma", When::Always) && !most.includes("storm", When::Asked));
    assert!(!most.includes("soak", When::Asked) && !most.includes("misbehave-panic", When::Named));
    let few = selection("selftest=dma-*,-dma-many");
    assert!(few.includes("dma-sizes", When::Always) && !few.includes("dma-many", When::Always));
    assert!(!few.includes("address-bits", When::Always));
}

#[test]
fn a_list_runs_nothing() {
    assert_eq!(selection("selftest=list"), Selection::List);
    assert!(!Selection::List.includes("address-bits", When::Always));
}

/// A typing error must not pass as a success.
#[test]
fn a_pattern_that_matches_no_test_is_found() {
    let tests = [
        ("stale-alias", When::Always),
        ("exchange-order-4", When::Always),
        ("soak", When::Asked),
        ("misbehave-panic", When::Named),
    ];
    for (text, unmatched) in [
        ("selftest=all", &[][..]),
        ("selftest=none", &[]),
        ("selftest=stale-alias,exchange-*,soak,misbehave-panic", &[]),
        ("selftest=-soak,-exchange-*", &[]),
        ("selftest=stale-alias,exchange-order4", &["exchange-order4"]),
        ("selftest=nonexistent,-storm", &["nonexistent", "-storm"]),
        // A test that ends the kernel needs its full name.
        ("selftest=misbehave-*", &["misbehave-*"]),
    ] {
        let selection = selection(text);
        assert_eq!(selection.unmatched(&tests), unmatched, "{text}");
    }
}

#[test]
fn the_last_value_of_an_option_counts() {
    assert_eq!(parse(b"seed=1 seed=2").0.seed, 2);
}

#[test]
fn an_unknown_option_is_named() {
    assert!(complaint("frobnicate=1").contains("unknown option \"frobnicate=1\""));
    assert!(complaint("quiet").contains("unknown option \"quiet\""));
    assert!(complaint("=").contains("unknown option \"=\""));
}

/// Xen repeats two of its own options, and says `acpi=off` if it found no ACPI.
#[test]
fn what_xen_appends_for_dom0_is_ignored() {
    let (options, complaints) = parse(b"selftest=none noapic acpi=off");
    assert_eq!((options.selftest, complaints), (Selection::None, vec![]));
    assert_eq!(parse(b" acpi=verbose").1, []);
    assert!(complaint("noapic=1").contains("unknown option \"noapic=1\""));
    assert!(complaint("acpi").contains("unknown option \"acpi\""));
}

#[test]
fn bytes_that_are_not_utf8_are_a_complaint() {
    for text in [&b"selftest=none\xff"[..], b"selftest=none \xfe=1", b"\xc3"] {
        let (_, complaints) = parse(text);
        assert_eq!(complaints.len(), 1, "{text:x?}");
        assert!(complaints[0].to_string().contains('\u{fffd}'), "{}", complaints[0]);
    }
}

#[test]
fn a_command_line_of_the_length_at_which_xen_cuts_is_a_complaint() {
    let line = b"selftest=none seed=1";
    for (cut_after, complaints) in [(None, 0), (Some(line.len() + 1), 0), (Some(line.len()), 1)] {
        let (options, found) = command_line::parse(line, cut_after);
        assert_eq!((options.selftest, found.len()), (Selection::None, complaints));
        assert!(found.iter().all(|it| it.to_string().contains("20 bytes arrived")), "{found:?}");
    }
}

#[test]
fn a_bad_value_is_named_with_what_was_expected() {
    for (text, expected) in [
        ("selftest=", "all, none, list, or names"),
        ("selftest=a,,b", "all, none, list, or names"),
        ("selftest=A", "all, none, list, or names"),
        ("selftest=-", "all, none, list, or names"),
        ("selftest=--a", "all, none, list, or names"),
        ("selftest=all,a", "all, none, list, or names"),
        ("trace=loud", "off, summary, full"),
        ("vmap=eager", "lazy or sync"),
        ("fuse=no", "on or off"),
        ("server=10.0.2.2", "<IPv4 address>:<port>"),
        ("server=10.0.2.2:0", "<IPv4 address>:<port>"),
        ("server=host:80", "<IPv4 address>:<port>"),
        ("seed=-1", "below 2^64"),
        ("seed=+1", "below 2^64"),
        ("seed=0x", "below 2^64"),
        ("seed=18446744073709551616", "below 2^64"),
        ("probe=9", "<order>:<address bits>"),
        ("probe=:30", "<order>:<address bits>"),
        ("probe=9:30:1", "<order>:<address bits>"),
        ("probe=4294967296:30", "<order>:<address bits>"),
        ("exit=now", "poweroff, reboot, crash or hold"),
    ] {
        let message = complaint(text);
        assert!(message.contains(text) && message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn a_number_out_of_range_is_named_with_the_range() {
    assert_eq!(complaint("probe=40:9"), "bad value in \"probe=40:9\": order 40 is not in 0..=18");
    assert_eq!(
        complaint("probe=9:12"),
        "bad value in \"probe=9:12\": address bits 12 is not in 13..=64"
    );
}

#[test]
fn a_bench_list_is_parsed() {
    let (options, complaints) = parse(b"bench=cycle:0:30:64,churn-far:4:32:10000,bare:9:64:1");
    assert_eq!(complaints, []);
    let [cycle, churn, bare] = options.bench[..] else { panic!("{:?}", options.bench) };
    let expected = BenchEntry {
        pattern: BenchPattern::Churn,
        far: true,
        order: Order::new(4).unwrap(),
        bits: AddressBits::new(32).unwrap(),
        count: 10_000,
    };
    assert_eq!(churn, expected);
    assert_eq!(
        (churn.pattern_name(), churn.to_string()),
        ("churn-far", "churn-far:4:32:10000".into())
    );
    assert_eq!((cycle.pattern, cycle.far), (BenchPattern::Cycle, false));
    assert_eq!((bare.pattern, bare.count), (BenchPattern::Bare, 1));
}

#[test]
fn self_tests_run_with_a_benchmark_only_if_the_line_names_them() {
    assert_eq!(parse(b"bench=cycle:0:30:1").0.selftest, Selection::None);
    assert_eq!(parse(b"bench=cycle:0:30:1 selftest=all").0.selftest, Selection::All);
    assert_eq!(parse(b"selftest=all bench=cycle:0:30:1").0.selftest, Selection::All);
    assert_eq!(parse(b"").0.bench, []);
}

#[test]
fn a_malformed_bench_entry_is_named() {
    for bad in [
        "",
        "cycle",
        "cycle:0:30",
        "cycle:0:30:1:1",
        "cycle:0:30:0",
        "cycle:0:30:+1",
        "cycle:0:30:4294967296",
        "cycle:x:30:1",
        "cycle-near:0:30:1",
        "strict-far:0:30:1",
        "bare-far:0:30:1",
        "-far:0:30:1",
    ] {
        let message = complaint(&format!("bench=hold:0:30:1,{bad}"));
        assert!(message.contains(&format!("bad entry \"{bad}\" in bench=")), "{message}");
        assert!(message.contains("<pattern>:<order>:<address bits>:<count>"), "{message}");
    }
    assert!(complaint("bench=cycle:19:30:1").contains("\"cycle:19:30:1\": order 19"));
    assert!(complaint("bench=cycle:0:65:1").contains("address bits 65"));
}

#[test]
fn every_error_is_returned() {
    let (_, complaints) = parse(b"a seed=x probe=1:2");
    assert_eq!(complaints.len(), 3);
    assert!(matches!(complaints[0], Complaint::Unknown(_)));
    assert!(matches!(complaints[1], Complaint::BadValue { .. }));
    assert!(matches!(complaints[2], Complaint::OutOfRange { .. }));
}

#[test]
fn globs_match_as_a_shell_would() {
    let globs = |text: &str| Selection::Patterns(text.split(',').map(String::from).collect());
    for (glob, name, expected) in [
        ("*", "anything", true),
        ("a*", "a", true),
        ("*a", "ba", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*-order-*", "exchange-order-10", true),
        ("*order-1", "exchange-order-10", false),
        ("e*o*0", "exchange-order-10", true),
        ("a*b*c", "aXcXb", false),
        ("exchange", "exchange-order-1", false),
    ] {
        assert_eq!(globs(glob).includes(name, When::Always), expected, "{glob} {name}");
    }
    // Many stars must not take exponential time.
    let stars = "*a".repeat(60) + "*b";
    assert!(!globs(&stars).includes(&"a".repeat(200), When::Always));
}

#[test]
fn a_test_of_a_users_device_runs_on_request_alone() {
    for device in ["nvme-random", "e1000-dhcp", "virtio-blk-writes", "pci-devices"] {
        for text in
            ["", "selftest=all", "selftest=-storm", "selftest=edu-*,dma-*", "server=10.0.2.2:1"]
        {
            assert!(!selection(text).includes(device, When::Asked), "{text}: {device}");
        }
        assert!(selection("selftest=*").includes(device, When::Asked));
        assert!(!selection("selftest=*,-*-*").includes(device, When::Asked));
    }
}

#[test]
fn a_test_that_ends_the_kernel_must_be_named_in_full() {
    let named = Selection::Patterns(vec!["misbehave-panic".into()]);
    let glob = Selection::Patterns(vec!["misbehave-*".into(), "*".into()]);
    assert!(named.includes("misbehave-panic", When::Named));
    assert!(!glob.includes("misbehave-panic", When::Named));
    assert!(!Selection::All.includes("misbehave-panic", When::Named));
    assert!(!Selection::All.includes("refill-order-12", When::Asked));
    assert!(glob.includes("refill-order-12", When::Asked));
}
