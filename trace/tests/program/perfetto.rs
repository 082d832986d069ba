//! The timeline: the structure that the viewer relies on, for whole and for damaged logs.

use std::collections::BTreeMap;

use crate::run::{log, run};
use serde_json::Value;

/// Writes the timeline of a log and returns its events.
fn events(name: &str, log: &[u8], options: &[&str]) -> Vec<Value> {
    let path = std::env::temp_dir().join(format!("xen-contig-{}-{name}.json", std::process::id()));
    let output = run(&[options, &["--perfetto", path.to_str().unwrap()]].concat(), log);
    assert!(output.success && output.stdout.is_empty(), "{}", output.stderr);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(events) = document["traceEvents"].take() else { panic!("no events") };
    events
}

fn events_of(name: &str) -> Vec<Value> {
    events(name, &std::fs::read(log(name)).unwrap(), &[])
}

fn ns(event: &Value, field: &str) -> u64 {
    (event[field].as_f64().unwrap() * 1000.0).round() as u64
}

/// Checks that each slice lies inside the one that is open when it begins.
fn check_nesting(events: &[Value]) {
    let mut open = BTreeMap::<(u64, u64), Vec<(u64, String)>>::new();
    let mut last = BTreeMap::<(u64, u64), u64>::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let (start, end) = (ns(event, "ts"), ns(event, "ts") + ns(event, "dur"));
        assert!(last.insert(track, start).is_none_or(|last| last <= start), "not sorted: {event}");
        let open = open.entry(track).or_default();
        while open.last().is_some_and(|(end, _)| *end <= start) {
            open.pop();
        }
        if let Some((outer, name)) = open.last() {
            assert!(end <= *outer, "{event} ends after {name}");
        }
        open.push((end, event["name"].as_str().unwrap().to_owned()));
    }
}

/// The names of the slices around each slice and its own, the outermost first.
fn paths(events: &[Value]) -> Vec<String> {
    let mut open = Vec::<(u64, &str)>::new();
    let mut paths = Vec::new();
    for event in events.iter().filter(|event| event["ph"] == "X" && event["tid"] == 0) {
        let start = ns(event, "ts");
        while open.last().is_some_and(|(end, _)| *end <= start) {
            open.pop();
        }
        open.push((start + ns(event, "dur"), event["name"].as_str().unwrap()));
        paths.push(open.iter().map(|(_, name)| *name).collect::<Vec<_>>().join("/"));
    }
    paths
}

#[test]
fn slices_nest_by_test_operation_phase_and_call() {
    let events = events_of("serial");
    check_nesting(&events);
    let paths = paths(&events);
    let path = "stale-alias/alloc_coherent/detach+exchange/multicall exchange";
    assert!(paths.iter().any(|found| found == path), "{paths:?}");
    assert!(paths.iter().any(|found| found == "stale-alias/alloc_coherent/zero"), "{paths:?}");
    assert!(paths.iter().any(|found| found == "xen_version version"), "{paths:?}");
}

#[test]
fn times_are_microseconds_and_arguments_have_the_frames() {
    let events = events_of("serial");
    let call = events.iter().find(|event| event["args"]["number"] == 10).unwrap();
    assert_eq!((call["ts"].as_f64(), call["dur"].as_f64()), (Some(8_033_180.0), Some(90.5)));
    let arguments = &call["args"];
    assert_eq!(arguments["frames in"], "0x7d000+8");
    assert_eq!(arguments["frames at"], "0x400+8");
    assert_eq!(arguments["frames out"], "0x7fc50+8");
    assert_eq!((&arguments["done"], &arguments["bits"]), (&Value::from(3), &Value::from(64)));
    assert_eq!(
        (&arguments["test"], &arguments["phase"]),
        (&"stale-alias".into(), &"detach+exchange".into())
    );
    let operation = events.iter().find(|event| event["cat"] == "operation").unwrap();
    assert_eq!(operation["args"]["bytes"], 32_768);
}

#[test]
fn each_vcpu_has_a_named_track() {
    let events = events_of("vcpus");
    check_nesting(&events);
    let names: Vec<_> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|e| &e["args"]["name"])
        .collect();
    assert_eq!(names, ["vCPU 0", "vCPU 1"]);
    let on_vcpu_1 = events.iter().filter(|event| event["ph"] == "X" && event["tid"] == 1);
    assert_eq!(on_vcpu_1.count(), 5);
}

#[test]
fn each_boot_is_a_process() {
    let log = std::fs::read(log("boots")).unwrap();
    let events = events("boots", &log, &["--boot", "all"]);
    check_nesting(&events);
    let mut names = events.iter().filter(|event| event["name"] == "process_name");
    assert_eq!(names.next_back().unwrap()["args"]["name"], "boot 4 of 4 of domain 2");
}

#[test]
fn losses_are_instants_at_the_place_of_the_loss() {
    let events = events_of("lost");
    check_nesting(&events);
    let losses: Vec<_> = events.iter().filter(|event| event["ph"] == "i").collect();
    assert_eq!(losses.len(), 9);
    let name = losses[0]["name"].as_str().unwrap();
    assert_eq!(name, "lost: 1234 records were overwritten before they were printed");
    assert_eq!((ns(losses[0], "ts"), &losses[0]["s"]), (5_000_000_000, &"t".into()));
    let cut = events.iter().find(|event| event["name"] == "cut-in-the-middle").unwrap();
    assert_eq!(cut["args"]["unfinished"], true);
}

#[test]
fn slices_nest_whatever_lines_are_lost() {
    for name in ["serial", "vcpus", "lost", "panic"] {
        let log = std::fs::read(log(name)).unwrap();
        let lines: Vec<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
        for lost in 0..lines.len() {
            let rest: Vec<&[u8]> = lines
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != lost)
                .map(|(_, line)| *line)
                .collect();
            check_nesting(&events(&format!("{name}-{lost}"), &rest.concat(), &["--boot", "all"]));
        }
    }
}

#[test]
fn a_span_at_the_last_moment_has_no_length() {
    let log = b"# trace version=1 vcpus=1 ring=64 calls=all\n\
        # trace v0 @18446744073.709551615 begin test late\n";
    let events = events("last-moment", log, &[]);
    let slice = events.iter().find(|event| event["ph"] == "X").unwrap();
    assert_eq!((&slice["name"], ns(slice, "dur")), (&"late".into(), 0));
}
