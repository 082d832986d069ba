//! The parser of the kernel's command line.

use hypercall::trace::Filter;
use xen_contig::vmap::UnmapMode;

use super::Target;
use exit::Exit;
use parser::{Complaint, Options, Selection, TraceLevel, When, parse};

#[path = "../../../../kernel/src/command_line.rs"]
pub mod parser;

#[path = "../../../../kernel/src/bench/entry.rs"]
pub mod entry;

/// The items of the kernel's module of this name that the parser uses.
pub mod bench {
    pub use super::entry::{BadEntry, BenchEntry};
}

/// The items of the kernel's module of this name that the parser uses.
pub mod exit {
    /// The kernel's type of this name, without the methods that end the guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Exit {
        /// Power off.
        Poweroff,
        /// Reboot.
        Reboot,
        /// Crash.
        Crash,
        /// Hold.
        Hold,
    }
}

pub const TARGET: Target = Target {
    name: "command_line",
    run,
    max_len: 512,
    words: &[
        b"selftest=",
        b"trace=",
        b"full:memory_op,",
        b"ring=",
        b"vmap=",
        b"seed=",
        b"probe=",
        b"bench=",
        b"cycle",
        b"hold",
        b"churn",
        b"strict",
        b"bare",
        b"-far:",
        b"exit=",
        b"all",
        b"none",
        b"list",
        b",-",
        b"off",
        b"summary",
        b"full",
        b"lazy",
        b"sync",
        b"poweroff",
        b"reboot",
        b"crash",
        b"hold",
        b"0x",
        b"18446744073709551615",
        b"4294967296",
        b":",
        b",",
        b"*",
        b" ",
        b"exchange-order-",
    ],
    seeds: || {
        [
            "selftest=exchange-*,stale-alias trace=full:memory_op,mmu_update ring=64 vmap=sync seed=0xff probe=9:30 exit=hold",
            "selftest=*a*a*a*b,none trace=off seed=18446744073709551615 probe=0:13 exit=crash",
            "selftest=none a=b =c probe=19:9",
            "bench=cycle-far:0:30:64,churn:4:32:10000,bare:9:64:1 selftest=all",
        ]
        .map(|line| line.as_bytes().to_vec())
        .into()
    },
};

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (options, complaints) = parse(input, None);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    assert!(complaints.len() <= words.len());
    for complaint in &complaints {
        let (Complaint::Unknown(word)
        | Complaint::BadValue { word, .. }
        | Complaint::NoHypercall { word, .. }
        | Complaint::BadBenchEntry { entry: word }
        | Complaint::OutOfRange { word, .. }) = complaint
        else {
            panic!("no limit was passed: {complaint}");
        };
        // An entry of `bench=` is a part of a word.
        assert!(words.iter().any(|known| known.contains(word.as_str())), "{complaint}");
        assert!(complaint.to_string().contains(word.as_str()));
    }
    // The options can be written as a command line, which the parser reads as the same options.
    let (again, complaints) = parse(render(&options).as_bytes(), None);
    assert_eq!((again, complaints), (options.clone(), vec![]));

    for name in ["exchange-order-10", "stale-alias", "a", "", "aXcXb", "misbehave-panic"] {
        let (expected, asked, named) = match &options.selftest {
            Selection::All => (true, false, false),
            Selection::None | Selection::List => (false, false, false),
            Selection::Patterns(patterns) => {
                let (left_out, selected): (Vec<&str>, Vec<&str>) =
                    patterns.iter().map(String::as_str).partition(|it| it.starts_with('-'));
                let any = |globs: &[&str]| {
                    globs.iter().any(|glob| matches(glob.as_bytes(), name.as_bytes()))
                };
                let left_out: Vec<&str> = left_out.iter().map(|it| &it[1..]).collect();
                let stays = !any(&left_out);
                let asked = stays && any(&selected);
                (asked || stays && selected.is_empty(), asked, stays && selected.contains(&name))
            }
        };
        assert_eq!(options.selftest.includes(name, When::Always), expected, "{options:?} {name}");
        assert_eq!(options.selftest.includes(name, When::Asked), asked, "{options:?} {name}");
        assert_eq!(options.selftest.includes(name, When::Named), named, "{options:?} {name}");
        let unmatched = options.selftest.unmatched(&[(name, When::Always)]);
        assert!(!asked || !unmatched.contains(&name), "{options:?} {name}");
    }
}

fn render(options: &Options) -> String {
    let selftest = match &options.selftest {
        Selection::All => "all".to_string(),
        Selection::None => "none".to_string(),
        Selection::List => "list".to_string(),
        Selection::Patterns(patterns) => patterns.join(","),
    };
    let trace = match (options.trace.level, options.trace.filter) {
        (TraceLevel::Off, _) => "off".to_string(),
        (TraceLevel::Summary, _) => "summary".to_string(),
        (TraceLevel::Full, Filter::ALL) => "full".to_string(),
        (TraceLevel::Full, filter) => format!("full:{filter}"),
    };
    let mut line = format!("selftest={selftest} trace={trace} seed={}", options.seed);
    if let Some(records) = options.trace.ring {
        line += &format!(" ring={records}");
    }
    if let Some(probe) = options.probe {
        line += &format!(" probe={}:{}", probe.order, probe.bits);
    }
    if !options.bench.is_empty() {
        let entries: Vec<String> = options.bench.iter().map(ToString::to_string).collect();
        line += &format!(" bench={}", entries.join(","));
    }
    if let Some(vmap) = options.vmap {
        let vmap = match vmap {
            UnmapMode::Lazy => "lazy",
            UnmapMode::Sync => "sync",
        };
        line += &format!(" vmap={vmap}");
    }
    if let Some(exit) = options.exit {
        let exit = match exit {
            Exit::Poweroff => "poweroff",
            Exit::Reboot => "reboot",
            Exit::Crash => "crash",
            Exit::Hold => "hold",
        };
        line += &format!(" exit={exit}");
    }
    line
}

/// Returns true if the glob matches the name, computed in the simplest way.
///
/// After each byte of the glob, `reach` says which prefixes of the name match.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for &byte in glob {
        if byte == b'*' {
            for at in 0..name.len() {
                reach[at + 1] |= reach[at];
            }
        } else {
            for at in (0..name.len()).rev() {
                reach[at + 1] = reach[at] && name[at] == byte;
            }
            reach[0] = false;
        }
    }
    reach[name.len()]
}
