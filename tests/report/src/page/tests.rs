//! Does the page appear whatever the sources are, and can nothing in them become part of it?

use super::*;
use crate::results::Outcome;
use crate::results::tests::guest;
use serde_json::json;

/// A directory that stands for the repository and is removed in the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("report-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join(BED)).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Returns the page; the template engine escapes slashes, too.
    fn html(&self) -> String {
        html(&self.0).unwrap().replace("&#x2f;", "/")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Text that must not act on a page or on a terminal.
const HOSTILE: &str =
    "</td><script>alert(1)</script>\x1b[31m\" onclick='x' {{ 7 * 7 }}\u{202e}&amp;";

fn run(text: &str) -> String {
    let mut guest =
        guest("4.17", "pv-domu", &[(text, Outcome::Failed, text), ("b", Outcome::Skipped, text)]);
    guest.reasons = vec![text.to_owned()];
    let other = crate::results::tests::guest(text, text, &[("a", Outcome::Passed, "")]);
    json!({
        "format": 1, "verdict": text, "exit_status": 5, "passed": 1, "failed": 1, "skipped": 1,
        "guests": [guest, other],
        "checks": [{"name": text, "result": "failed", "reason": text, "seconds": 1.0}],
    })
    .to_string()
}

fn conformance_row(text: &str) -> serde_json::Value {
    let answer = json!({"operation": text, "errno": text, "done": 1, "times": 2});
    let tally = json!({"passed": 1, "failed": [text], "skipped": [text], "answers": [answer]});
    json!([{
        "row": text, "stimulus": text, "expected": text, "model": tally,
        "xens": {text: {text: tally}},
    }])
}

#[test]
fn nothing_in_a_source_becomes_part_of_the_page() {
    let root = Root::new("hostile");
    root.write("target/bed/result.json", run(HOSTILE));
    root.write("target/bed/conformance.json", conformance_row(HOSTILE).to_string());
    let line = json!({"ok": 1, "exchanged": 1, "alloc": 5000, "free": 10, "max": 9, "calls": 2});
    let entry = format!("cycle:{HOSTILE}:30:1");
    let row = json!({"entry": entry, "linux": line, "here": line, "ratio": 1.0, "to_reach": 5.0});
    let bench = json!({"xen": HOSTILE, "rows": [row]}).to_string();
    root.write("target/bed/4.17/bench.json", bench);
    root.write("target/tmp/fault-cases/a<script>-1", format!("3 {HOSTILE}\n"));
    let html = root.html();
    // The page has a script of its own, and the one of the hostile text nowhere.
    assert_eq!(html.matches("<script").count(), 1, "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)"));
    for never in ["onclick='x'", "\x1b", "\u{202e}", "{{ 49", " 49 }}", "[31m\" "] {
        assert!(!html.contains(never), "{never:?} is on the page");
    }
    assert!(html.contains("␛[31m"), "an escape character is shown by its picture");
}

#[test]
fn without_any_source_the_page_names_the_targets_that_write_them() {
    let html = Root::new("empty").html();
    for target in ["make test", "make conformance", "trace=full", "make bench"] {
        assert!(html.contains(target), "{target} is not on the page");
    }
    assert!(html.ends_with("</html>\n") || html.ends_with("</html>"), "{html}");
}

#[test]
fn a_damaged_source_is_named_and_hides_no_other() {
    let root = Root::new("damaged");
    root.write("target/bed/result.json", "{\"verdict\": ");
    root.write("target/bed/conformance.json", [0xff, 0xfe]);
    root.write("target/bed/4.20/bench.json", "[]");
    let tests = [("exchange-order-1", Outcome::Passed, "")];
    let guest = serde_json::to_string(&guest("4.20", "pv-dom0", &tests)).unwrap();
    root.write("target/bed/4.20/pv-dom0/result.json", guest);
    let html = root.html();
    for words in ["target/bed/result.json", "EOF while parsing", "conformance.json", "bench.json"] {
        assert!(html.contains(words), "{words} is not on the page");
    }
    assert!(html.contains("exchange-order-1"), "the guest of an earlier run is shown");
}

#[test]
fn a_row_carries_what_the_filters_need() {
    let root = Root::new("rows");
    root.write("target/bed/result.json", run("x"));
    let html = root.html();
    assert!(html.contains("data-cells=\"pv-domu:failed \""), "{html}");
    assert!(html.contains("data-cells=\":failed\""), "a check is of no mode");
}

#[test]
fn the_last_log_with_an_exchange_in_a_transaction_is_shown() {
    let root = Root::new("traced");
    let exchange = "\
# trace version=1 vcpus=1 ring=4096 calls=all
# trace v0 #1 @1.000000000 +9 exchange memory_op exchange in=1 out=1 -> 0 done=1
# trace v0 #1 in 0x1
# trace v0 #1 at 0x2
# trace v0 #1 out 0x3
";
    let phase = "# trace v0 @1.000000000 +10 phase exchange calls=1\n";
    root.write("target/bed/4.17/pv-dom0/console.log", format!("{exchange}{phase}"));
    root.write("target/bed/4.17/pv-domu/console.log", exchange);
    root.write("target/bed/4.17/pvh-domu/console.log", "# trace version=1\n");
    let html = root.html();
    assert!(html.contains("href=\"../bed/4.17/pv-dom0/console.log\">target/bed/"), "{html}");
    for words in ["An exchange of 1 frame of 4 KiB", "exchange: 10 ns, 1 hypercall"] {
        assert!(html.contains(words), "{words} is not on the page");
    }
}

#[test]
fn logs_that_exist_are_linked_relative_to_the_page() {
    let root = Root::new("logs");
    root.write("target/bed/result.json", run("x"));
    root.write("target/bed/4.17/pv-domu/console.log", "KTAP");
    root.write("target/bed/4.17/pv-dom0-panic/qemu.cmd", "qemu");
    let html = root.html();
    assert!(html.contains("href=\"../bed/4.17/pv-domu/console.log\""), "{html}");
    assert!(!html.contains("xl-dmesg.log\""));
    assert!(html.contains("href=\"../bed/4.17/pv-dom0-panic/qemu.cmd\""), "{html}");
}

#[test]
fn the_page_names_no_address_outside_of_it() {
    let root = Root::new("network");
    root.write("target/bed/result.json", run("x"));
    let html = root.html();
    for word in ["http:", "https:", "src=", "@import", "<link"] {
        assert!(!html.contains(word), "{word} is on the page");
    }
}

#[test]
fn numbers_are_grouped() {
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
}
