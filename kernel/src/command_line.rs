//! The kernel command line. The host tests compile this file too.
//!
//! `selftest=all|none|list|<glob>,-<glob>,…` · `trace=off|summary|full[:<hypercall>,…]` ·
//! `ring=<records>` · `vmap=lazy|sync` · `seed=<u64>` ·
//! `probe=<order>:<address bits>` · `bench=<pattern>:<order>:<address bits>:<count>,…` ·
//! `fuse=on|off` · `server=<IPv4 address>:<port>` · `report=on|off` ·
//! `exit=poweroff|reboot|crash|hold`

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddrV4;
use core::ops::RangeInclusive;

use hypercall::trace::{Filter, Hypercall};
use xen_contig::addr::{AddressBits, Order, OutOfRange};
use xen_contig::exchange::Fuse;
use xen_contig::vmap::UnmapMode;

use super::bench::{BadEntry, BenchEntry};
use super::exit::Exit;

/// When a self-test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With all the others, by default.
    Always,
    /// If a pattern matches its name, because it takes long or writes to a disk.
    Asked,
    /// If its full name is given, because it ends the kernel.
    Named,
}

/// Which self-tests to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All tests that run by default.
    All,
    /// No test.
    None,
    /// No test. Their names are printed.
    List,
    /// Tests whose name matches a pattern, and none that begins with a minus; `*` stands for any text. With
    /// exclusions alone, all others that run by default.
    Patterns(Vec<String>),
}

impl Selection {
    /// Returns true if the test should run.
    pub fn includes(&self, name: &str, when: When) -> bool {
        match self {
            Self::All => when == When::Always,
            Self::None | Self::List => false,
            Self::Patterns(patterns) => {
                let mut excluded = patterns.iter().filter_map(|it| it.strip_prefix('-'));
                let mut selected = patterns.iter().filter(|it| !it.starts_with('-')).peekable();
                !excluded.any(|glob| matches(glob, name))
                    && match selected.peek() {
                        Some(_) => selected.any(|glob| selects(glob, name, when)),
                        None => when == When::Always,
                    }
            }
        }
    }

    /// Returns the patterns that match no test.
    pub fn unmatched(&self, tests: &[(&str, When)]) -> Vec<&str> {
        let Self::Patterns(patterns) = self else { return Vec::new() };
        let is_unmatched = |pattern: &&str| match pattern.strip_prefix('-') {
            Some(glob) => !tests.iter().any(|(name, _)| matches(glob, name)),
            None => !tests.iter().any(|(name, when)| selects(pattern, name, *when)),
        };
        patterns.iter().map(String::as_str).filter(is_unmatched).collect()
    }
}

/// Returns true if the pattern selects the test.
fn selects(glob: &str, name: &str, when: When) -> bool {
    match when {
        When::Named => glob == name,
        When::Always | When::Asked => matches(glob, name),
    }
}

/// How much of the hypercall trace is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceLevel {
    /// Nothing.
    Off,
    /// Totals at the end.
    Summary,
    /// Every hypercall, and the totals.
    Full,
}

/// What is recorded of hypercalls, and what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// How much is printed.
    pub level: TraceLevel,
    /// The hypercalls that are recorded.
    pub filter: Filter,
    /// The number of records that each vCPU holds until they are printed; `None` for a number that
    /// suits the guest's memory.
    pub ring: Option<usize>,
}

/// The limits of `ring=`. A million records take 176 MiB.
const RING: RangeInclusive<u64> = 64..=1 << 20;

/// The buffer that `probe=` asks for, which a witness finds in machine memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeBuffer {
    /// The size of the buffer.
    pub order: Order,
    /// The address limit of the buffer.
    pub bits: AddressBits,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The self-tests to run. With `bench=` none runs, unless `selftest=` asks for some.
    pub selftest: Selection,
    /// The hypercall trace.
    pub trace: TraceOptions,
    /// The seed of the patterns that tests and `probe=` write.
    pub seed: u64,
    /// The buffer for a witness. If there is one, no self-test runs.
    pub probe: Option<ProbeBuffer>,
    /// What is measured before the self-tests.
    pub bench: Vec<BenchEntry>,
    /// When unmapped areas lose their entries; `None` keeps the default of the build.
    pub vmap: Option<UnmapMode>,
    /// Whether the first steps of an exchange share a hypercall.
    pub fuse: Fuse,
    /// The TCP server with which the tests of a network card exchange data.
    pub server: Option<SocketAddrV4>,
    /// Whether the reports of the drivers' devices are printed at the end.
    pub report: bool,
    /// How the kernel ends; `None` powers off, or holds the domain if there is a buffer for a witness.
    pub exit: Option<Exit>,
}

/// An option on the command line that the kernel does not understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// The option is unknown.
    Unknown(String),
    /// The value is malformed.
    BadValue {
        /// The option, as it stands on the command line.
        word: String,
        /// The values that the option takes.
        expected: &'static str,
    },
    /// `trace=full:` names something that is not a hypercall.
    NoHypercall {
        /// The option, as it stands on the command line.
        word: String,
        /// The name.
        name: String,
    },
    /// An entry of `bench=` is malformed.
    BadBenchEntry {
        /// The entry, as it stands on the command line.
        entry: String,
    },
    /// A number is out of its range.
    OutOfRange {
        /// The option or entry, as it stands on the command line.
        word: String,
        /// The number and its range.
        range: OutOfRange,
    },
    /// Xen has probably cut the command line.
    Cut {
        /// The length that arrived, in bytes.
        bytes: usize,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(
                f,
                "unknown option \"{word}\" (known: selftest=, trace=, ring=, vmap=, seed=, probe=, \
                 bench=, fuse=, server=, report=, exit=)"
            ),
            Self::BadValue { word, expected } => {
                write!(f, "bad value in \"{word}\": expected {expected}")
            }
            Self::NoHypercall { word, name } => write!(
                f,
                "bad value in \"{word}\": \"{name}\" is not a hypercall; the names are those of \
                 Xen's public/xen.h without __HYPERVISOR_, such as memory_op or mmu_update"
            ),
            Self::BadBenchEntry { entry } => {
                write!(f, "bad entry \"{entry}\" in bench=: expected {}", BadEntry::FORM)
            }
            Self::OutOfRange { word, range } => write!(f, "bad value in \"{word}\": {range}"),
            Self::Cut { bytes } => write!(
                f,
                "{bytes} bytes arrived, and Xen cuts a longer command line there; make it shorter"
            ),
        }
    }
}

/// Parses the command line. A later option overrides an earlier one.
///
/// `cut_after` is the number of bytes after which Xen cuts it, without a message.
///
/// No option needs a character that is not ASCII. So a byte that is not UTF-8 stands for one that is
/// never right, and the complaint shows it as U+FFFD.
pub fn parse(bytes: &[u8], cut_after: Option<usize>) -> (Options, Vec<Complaint>) {
    let text = String::from_utf8_lossy(bytes);
    let words = || text.split_ascii_whitespace().filter(|word| !is_for_linux(word));
    let benches_alone = words().any(|word| word.starts_with("bench="))
        && !words().any(|word| word.starts_with("selftest="));
    let mut options = Options {
        selftest: if benches_alone { Selection::None } else { Selection::All },
        trace: TraceOptions { level: TraceLevel::Off, filter: Filter::ALL, ring: None },
        seed: 0,
        probe: None,
        bench: Vec::new(),
        vmap: None,
        fuse: Fuse::On,
        server: None,
        report: false,
        exit: None,
    };
    let cut = cut_after.filter(|limit| bytes.len() == *limit);
    let cut = cut.map(|bytes| Complaint::Cut { bytes });
    let complaints =
        words().filter_map(|word| option(&mut options, word).err()).chain(cut).collect();
    (options, complaints)
}

/// Returns true for an option of Linux that Xen appends to the command line of dom0.
///
/// Xen repeats these two of its own command line and says `acpi=off` if it found no ACPI
/// (`create_dom0` in `xen/arch/x86/setup.c`).
fn is_for_linux(word: &str) -> bool {
    word == "noapic" || word.starts_with("acpi=")
}

fn option(options: &mut Options, word: &str) -> Result<(), Complaint> {
    let Some((name, value)) = word.split_once('=') else {
        return Err(Complaint::Unknown(word.to_string()));
    };
    let bad = |expected| Complaint::BadValue { word: word.to_string(), expected };
    match name {
        "selftest" => {
            options.selftest = match value {
                "all" => Selection::All,
                "none" => Selection::None,
                "list" => Selection::List,
                patterns if patterns.split(',').all(is_pattern) => {
                    Selection::Patterns(patterns.split(',').map(ToString::to_string).collect())
                }
                _ => {
                    return Err(bad(
                        "all, none, list, or names with * for any text and - before those to leave out, split \
                         by commas",
                    ));
                }
            }
        }
        "trace" => {
            (options.trace.level, options.trace.filter) = match value {
                "off" => (TraceLevel::Off, Filter::ALL),
                "summary" => (TraceLevel::Summary, Filter::ALL),
                "full" => (TraceLevel::Full, Filter::ALL),
                _ => match value.strip_prefix("full:") {
                    Some(names) => (TraceLevel::Full, filter(word, names)?),
                    None => {
                        return Err(bad(
                            "off, summary, full, or full: and names of hypercalls, split by commas",
                        ));
                    }
                },
            }
        }
        "ring" => {
            let records = number(value).ok_or_else(|| bad("a number of records"))?;
            if !RING.contains(&records) {
                let (min, max) = (*RING.start(), *RING.end());
                let range = OutOfRange { what: "ring", value: records, min, max };
                return Err(Complaint::OutOfRange { word: word.to_string(), range });
            }
            options.trace.ring = Some(records as usize);
        }
        "vmap" => {
            options.vmap = Some(match value {
                "lazy" => UnmapMode::Lazy,
                "sync" => UnmapMode::Sync,
                _ => return Err(bad("lazy or sync")),
            });
        }
        "seed" => options.seed = number(value).ok_or_else(|| bad("a number below 2^64"))?,
        "probe" => {
            let expected = "<order>:<address bits>";
            let (order, bits) = value.split_once(':').ok_or_else(|| bad(expected))?;
            let small = |text| {
                number(text).and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad(expected))
            };
            let range = |range| Complaint::OutOfRange { word: word.to_string(), range };
            options.probe = Some(ProbeBuffer {
                order: Order::new(small(order)?).map_err(range)?,
                bits: AddressBits::new(small(bits)?).map_err(range)?,
            });
        }
        "bench" => options.bench = value.split(',').map(bench_entry).collect::<Result<_, _>>()?,
        "fuse" => {
            options.fuse = match value {
                "on" => Fuse::On,
                "off" => Fuse::Off,
                _ => return Err(bad("on or off")),
            }
        }
        "server" => {
            let server: Option<SocketAddrV4> = value.parse().ok();
            let server = server.filter(|server| server.port() != 0);
            options.server = Some(server.ok_or_else(|| bad("<IPv4 address>:<port>"))?);
        }
        "report" => {
            options.report = match value {
                "on" => true,
                "off" => false,
                _ => return Err(bad("on or off")),
            }
        }
        "exit" => {
            options.exit = Some(match value {
                "poweroff" => Exit::Poweroff,
                "reboot" => Exit::Reboot,
                "crash" => Exit::Crash,
                "hold" => Exit::Hold,
                _ => return Err(bad("poweroff, reboot, crash or hold")),
            });
        }
        _ => return Err(Complaint::Unknown(word.to_string())),
    }
    Ok(())
}

/// Parses the names of hypercalls after `trace=full:`.
fn filter(word: &str, names: &str) -> Result<Filter, Complaint> {
    let hypercall = |name: &str| {
        Hypercall::from_name(name).ok_or_else(|| Complaint::NoHypercall {
            word: word.to_string(),
            name: name.to_string(),
        })
    };
    names.split(',').map(hypercall).collect()
}

fn bench_entry(text: &str) -> Result<BenchEntry, Complaint> {
    BenchEntry::parse(text).map_err(|bad| match bad {
        BadEntry::Form => Complaint::BadBenchEntry { entry: text.to_string() },
        BadEntry::OutOfRange(range) => Complaint::OutOfRange { word: text.to_string(), range },
    })
}

/// Returns true for a pattern, perhaps after a minus. The words with a meaning of their own stand alone.
fn is_pattern(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    !matches!(text, "" | "all" | "none" | "list")
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-*".contains(&b))
}

/// Parses a decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // from_str_radix would accept a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// Returns true if `name` matches `glob`, in which `*` stands for any text.
///
/// Each piece between two stars is matched at its first occurrence. Therefore the time is at most
/// the product of the lengths.
fn matches(glob: &str, name: &str) -> bool {
    let Some((prefix, glob)) = glob.split_once('*') else { return glob == name };
    let Some(mut name) = name.strip_prefix(prefix) else { return false };
    let (pieces, suffix) = glob.rsplit_once('*').unwrap_or(("", glob));
    for piece in pieces.split('*') {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.ends_with(suffix)
}
