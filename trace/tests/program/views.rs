//! What the program prints, view by view. `GOLDEN=write cargo test -p xen-contig-trace --test program`
//! writes the files of `tests/golden` anew.

use crate::run::{Output, log, run, run_on};

#[track_caller]
fn golden(name: &str, output: &Output) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let found = format!("{}---\n{}", output.stdout, output.stderr);
    if std::env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{path}");
    assert!(output.success);
}

#[test]
fn the_plain_view_has_a_line_per_call() {
    golden("plain", &run_on("serial", &[]));
}

#[test]
fn the_plain_view_has_columns_of_times_and_vcpus() {
    golden("columns", &run_on("vcpus", &["-t", "-r", "-T"]));
}

#[test]
fn every_frame_is_shown_on_demand() {
    golden("all-frames", &run_on("serial", &["-v", "-e", "exchange", "--test", "exchange-*"]));
}

#[test]
fn damage_is_named_at_the_end() {
    golden("damage", &run_on("lost", &[]));
}

#[test]
fn every_boot_has_a_heading() {
    golden("boots", &run_on("boots", &["--boot", "all"]));
}

#[test]
fn split_lines_are_shown_whole() {
    golden("split", &run_on("dmesg", &[]));
}

#[test]
fn the_summary_has_tables_for_boot_and_tests() {
    golden("summary", &run_on("serial", &["-c"]));
}

#[test]
fn the_shares_of_each_table_sum_to_a_hundred_percent() {
    let output = run_on("serial", &["-c"]);
    let mut tables = 0;
    for table in output.stdout.split("\n\n").filter(|table| table.contains(" % ")) {
        let share = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "%")?;
            Some(words[at - 1].replace('.', "").parse::<u64>().unwrap())
        };
        let rows = table.lines().filter(|line| !line.starts_with("total"));
        assert_eq!(rows.filter_map(share).sum::<u64>(), 1000, "{table}");
        tables += 1;
    }
    assert_eq!(tables, 3);
}

#[test]
fn tables_per_test_phase_and_operation() {
    for group in ["test", "phase", "operation"] {
        golden(&format!("by-{group}"), &run_on("serial", &["--by", group]));
    }
}

#[test]
fn the_longest_call_has_its_test_phase_and_frames() {
    golden("longest", &run_on("serial", &["--longest", "2"]));
}

#[test]
fn errors_alone() {
    golden("errors", &run_on("serial", &["--errors"]));
}

#[test]
fn json_lines() {
    golden("json", &run_on("lost", &["--json", "-"]));
}

#[test]
fn the_kernels_summary_is_shown_if_there_is_nothing_else() {
    for options in [&[][..], &["-c"], &["--longest", "1"]] {
        let output = run(options, b"# trace summary boot total 6 4\n");
        assert_eq!(output.stdout, "boot total 6 4\n");
        assert!(output.success && output.stderr.contains("trace=full"), "{}", output.stderr);
    }
}

/// The numbers of the calls that the program shows.
fn numbers(log: &str, options: &[&str]) -> Vec<u64> {
    let output = run_on(log, &[options, &["--json", "-"]].concat());
    assert!(output.success, "{}", output.stderr);
    let objects = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let calls = objects.filter(|object: &serde_json::Value| object["type"] == "call");
    calls.map(|call| call["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_filter_takes_hypercalls_and_operations() {
    assert_eq!(numbers("serial", &["-e", "memory_op"]), [2, 5, 7, 10, 14, 15]);
    assert_eq!(numbers("serial", &["-e", "exchange"]), [2, 7, 10, 14]);
    assert_eq!(numbers("serial", &["-e", "trace=mmuext_op,decrease_reservation"]), [7, 10, 13, 15]);
    assert_eq!(numbers("serial", &["-e", "tlb_flush_all", "-e", "xen_version"]), [0, 7, 10, 13]);
    assert_eq!(numbers("serial", &["-e", "memory_op,!exchange"]), [5, 15]);
    // As for strace, the sign at the beginning is of every name.
    assert_eq!(numbers("serial", &["-e", "!memory_op,mmu_update,update_va_mapping"]), [0, 1, 13]);
}

#[test]
fn a_filter_finds_the_operation_of_an_entry() {
    let log = b"# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 #0 @1.000000000 +1 - multicall entries=2 mmuext_op=1:invlpg_all vcpu_op -> 0 done=2\n";
    let shown = |name: &str| run(&["-e", name], log).stdout.contains("multicall");
    assert!(shown("invlpg_all") && shown("vcpu_op") && shown("mmuext_op") && shown("multicall"));
    assert!(!shown("tlb_flush_all") && !shown("memory_op"));
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_names() {
    let output = run_on("serial", &["-e", "memory_op,no_such_op"]);
    assert!(!output.success && output.stdout.is_empty());
    assert!(output.stderr.contains("-e no_such_op"), "{}", output.stderr);
    assert!(output.stderr.contains(" mmu_update ") && output.stderr.contains(" exchange "));
}

#[test]
fn tests_vcpus_and_errors_are_selected() {
    assert_eq!(numbers("serial", &["--test", "exchange-*"]), [12, 13, 14, 15]);
    assert_eq!(numbers("serial", &["--test", "stale-alia?", "-e", "multicall"]), [7, 10]);
    assert_eq!(numbers("serial", &["--errors"]), [1, 2, 7, 15]);
    assert_eq!(numbers("vcpus", &["--vcpu", "1"]), [0, 1, 2]);
    assert_eq!(numbers("boots", &["--boot", "1"]), [40, 41]);
    assert_eq!(numbers("boots", &[]), [0, 1]);
}

#[test]
fn what_does_not_exist_is_an_error_that_says_what_does() {
    for (options, message) in [
        (["--test", "x*"], "tests: exchange-order-4 stale-alias"),
        (["--vcpu", "1"], "the guest has the vCPUs 0 to 0"),
        (["--boot", "2"], "the log has 1 boots"),
        (["--boot", "0"], "`last` or `all`"),
    ] {
        let output = run_on("serial", &options);
        assert!(!output.success && output.stdout.is_empty());
        assert!(output.stderr.contains(message), "{}", output.stderr);
    }
}

#[test]
fn equal_calls_fold_on_demand() {
    let log = "# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 #0 @1.000000000 +5 - sched_op yield -> 0\n\
        # trace v0 #1 @1.000000010 +6 - sched_op yield -> 0 times=2\n\
        # trace v0 #3 @1.000000020 +7 - sched_op block -> 0\n";
    let folded = "      11 ns   sched_op yield -> 0 times=3\n       7 ns   sched_op block -> 0\n";
    let output = run(&["-T", "--fold"], log.as_bytes());
    assert_eq!(
        output.stdout,
        format!("            boot\n{folded}").replace("      11 ns", "      11 ns")
    );
    assert_eq!(run(&["-T"], log.as_bytes()).stdout.lines().count(), 4);
}

#[test]
fn a_log_without_a_trace_is_an_error_that_says_what_to_do() {
    let output = run(&[], b"(XEN) hello\n# trace #000001 @000000000001 memory_op exchange -> 0\n");
    assert!(!output.success && output.stdout.is_empty());
    for word in ["trace=full", "guest_loglvl=all", "xl console", "line 2"] {
        assert!(output.stderr.contains(word), "{word}: {}", output.stderr);
    }
    let output = run(&["/nonexistent/console.log"], b"");
    assert!(!output.success && output.stderr.contains("/nonexistent/console.log: "));
}

#[test]
fn standard_input_is_read_if_no_file_is_named() {
    let bytes = std::fs::read(log("serial")).unwrap();
    let expected = run_on("serial", &[]);
    assert_eq!(run(&[], &bytes).stdout, expected.stdout);
    assert_eq!(run(&["-"], &bytes).stdout, expected.stdout);
}

#[test]
fn no_control_character_reaches_the_terminal() {
    let log = "# trace version=1 vcpus=1 ring=8 calls=all\n\
        # trace v0 @1.000000000 begin test evil\x1b[2J\n\
        # trace v0 #0 @1.000000000 +5 - sched_op yield\x1b]0;x\x07 -> 0\n\
        # trace v\x1b[31m #0 @1.000000000 +5 - sched_op yield -> 0\n";
    let output = run(&["-T"], log.as_bytes());
    let all = format!("{}{}", output.stdout, output.stderr);
    assert!(!all.contains(|c: char| c.is_control() && c != '\n'), "{all:?}");
    assert!(output.stderr.contains("3 lines could not be read"), "{all}");
}
