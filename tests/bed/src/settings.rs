//! The options of the command line, and what they ask for.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ArgMatches, builder::ValueParser, value_parser};

use crate::choice::{GuestMode, KernelArgs};
use crate::guest::{Expect, ProbeRequest};
use crate::xen::Xen;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Xen, if one was chosen.
    pub xen: Option<Xen>,
    /// What is added to Xen's command line.
    pub xen_args: String,
    /// The modes, if they were chosen.
    pub modes: Option<Vec<GuestMode>>,
    /// vCPUs, if chosen.
    pub vcpus: Option<u32>,
    /// MiB, if chosen: of the domain in domU modes, of the machine in dom0 modes.
    pub memory: Option<u32>,
    /// The kernel command line.
    pub args: KernelArgs,
    /// The image's file.
    pub image: PathBuf,
    /// The time limit of each guest.
    pub timeout: Duration,
    /// The kernel of `guest`.
    pub kernel: Option<PathBuf>,
    /// The xl configuration of `guest`.
    pub config: Option<PathBuf>,
    /// The type of `guest`.
    pub kind: Option<GuestMode>,
    /// How `guest` says that it succeeded.
    pub expect: Expect,
    /// What `witness` asks the guest for.
    pub probe: ProbeRequest,
    /// What `cargo test` printed, for the model's column of the conformance table.
    pub model: Option<PathBuf>,
    /// The fuzzer that `test-long` runs.
    pub fuzz: Option<PathBuf>,
    /// How long `test-long` fuzzes each target.
    pub seconds: u32,
    /// The figures that `bench` compares with.
    pub compare: Option<PathBuf>,
    /// The document that gets the table of `bench`.
    pub into: Option<PathBuf>,
    /// Where the bed is made.
    pub target: PathBuf,
    /// A Debian mirror, if not the machine's own.
    pub mirror: Option<String>,
}

/// An option: its name, the word for its value, what it means, and how its value is read.
type OptionRow = (&'static str, &'static str, &'static str, fn() -> ValueParser);

/// All options of all commands.
const OPTIONS: [OptionRow; 20] = [
    (
        "xen",
        "XEN",
        "A release (see tests/bed/xen-releases), a hypervisor, or an installed Xen tree",
        || parsed::<Xen>().into(),
    ),
    ("xen-args", "TEXT", "Options that are added to Xen's command line", || {
        ValueParser::from(crate::choice::xen_args)
    }),
    ("mode", "MODE", "pv-dom0, pv-domu, pvh-dom0, pvh-domu or all [all]", || {
        ValueParser::from(|text: &str| GuestMode::parse_choice(text))
    }),
    ("vcpus", "N", "vCPUs of the guest [1]", || value_parser!(u32).range(1..=32).into()),
    (
        "memory",
        "MIB",
        "domU modes: memory of the domain [as in xen-configs/]; dom0 modes: of the machine [2048]",
        || value_parser!(u32).range(1..=1 << 20).into(),
    ),
    ("args", "TEXT", "The guest kernel's command line", || {
        ValueParser::from(|text: &str| KernelArgs::new(text))
    }),
    ("image", "PATH", "The image [target/image/xen-contig]", || value_parser!(PathBuf)),
    ("timeout", "SECONDS", "The time limit of each guest [240]", seconds),
    ("kernel", "PATH", "The kernel, if not as the xl configuration says", || {
        value_parser!(PathBuf)
    }),
    ("cfg", "PATH", "An xl configuration; without it the guest has 128 MiB", || {
        value_parser!(PathBuf)
    }),
    ("type", "TYPE", "pv or pvh [as in the xl configuration, or pvh]", || {
        ValueParser::from(GuestMode::of_type)
    }),
    (
        "expect",
        "HOW",
        "How the guest says that it succeeded: ktap, xtf, or regex:PATTERN for a line [ktap]",
        || parsed::<Expect>().into(),
    ),
    ("probe", "ORDER:BITS", "The order and the address bits that are asked for [9:30]", || {
        parsed::<ProbeRequest>().into()
    }),
    ("model", "FILE", "What `cargo test` printed, for the model's column", || {
        value_parser!(PathBuf)
    }),
    ("fuzz", "FILE", "The fuzzer; without it none is run", || value_parser!(PathBuf)),
    ("seconds", "N", "Seconds for each target of the fuzzer [600]", seconds),
    ("compare", "FILE", "The bench.json of an earlier run", || value_parser!(PathBuf)),
    ("into", "FILE", "A document with a place for the table", || value_parser!(PathBuf)),
    ("target", "DIR", "Where the bed is made [target/bed]", || value_parser!(PathBuf)),
    ("mirror", "URL", "A Debian mirror [the machine's own]", || value_parser!(String)),
];

fn seconds() -> ValueParser {
    value_parser!(u32).range(1..=86_400).into()
}

fn parsed<T>() -> impl clap::builder::TypedValueParser<Value = T>
where
    T: FromStr<Err = crate::error::Error> + Clone + Send + Sync + 'static,
{
    |text: &str| text.parse::<T>()
}

/// Returns the options that `has` accepts by name.
pub fn options(has: impl Fn(&str) -> bool) -> Vec<Arg> {
    let rows = OPTIONS.into_iter().filter(|(name, ..)| has(name));
    rows.map(|(name, value, help, parser)| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .help(help)
            .value_parser(parser())
            .allow_hyphen_values(true)
    })
    .collect()
}

impl Settings {
    /// Returns what a command line asks for, with the default for everything else.
    pub fn of(matches: &ArgMatches) -> Self {
        let get = Getter(matches);
        let seconds = |name: &str| get.find::<u32>(name);
        Self {
            xen: get.find("xen"),
            xen_args: get.find("xen-args").unwrap_or_default(),
            modes: get.find("mode"),
            vcpus: get.find("vcpus"),
            memory: get.find("memory"),
            args: get.find("args").unwrap_or_default(),
            image: get.find("image").unwrap_or_else(|| "target/image/xen-contig".into()),
            timeout: Duration::from_secs(seconds("timeout").unwrap_or(240).into()),
            kernel: get.find("kernel"),
            config: get.find("cfg"),
            kind: get.find("type"),
            expect: get.find("expect").unwrap_or(Expect::Ktap),
            probe: get.find("probe").unwrap_or(ProbeRequest { order: 9, bits: 30, seed: 0 }),
            model: get.find("model"),
            fuzz: get.find("fuzz"),
            seconds: seconds("seconds").unwrap_or(600),
            compare: get.find("compare"),
            into: get.find("into"),
            target: get.find("target").unwrap_or_else(|| "target/bed".into()),
            mirror: get.find("mirror"),
        }
    }
}

struct Getter<'m>(&'m ArgMatches);

impl Getter<'_> {
    /// Returns the value of an option. A command without the option has no value of it.
    fn find<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.0.try_get_one::<T>(name).ok().flatten().cloned()
    }
}
