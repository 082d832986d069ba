//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use wildmatch::WildMatch;

use crate::filter::Filter;
use crate::problem::PROGRAM;
use crate::selection::{Boots, Selection};

/// What the user wants.
pub struct Options {
    /// The log; standard input if absent or `-`.
    pub file: Option<PathBuf>,
    /// `-f`
    pub follow: bool,
    /// `--boot`
    pub boots: Boots,
    /// Which calls.
    pub selection: Selection,
    /// The columns of the plain view.
    pub columns: Columns,
    /// What goes to standard output.
    pub view: View,
    /// `--perfetto`
    pub perfetto: Option<PathBuf>,
    /// `--json`
    pub json: Option<PathBuf>,
}

/// What goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing: an export was asked for.
    Nothing,
    /// A line per call.
    Plain,
    /// `-c`
    Summary,
    /// `--by`
    By(Group),
    /// `--longest`
    Longest(usize),
}

/// The rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A row per self-test.
    Test,
    /// A row per phase.
    Phase,
    /// A row per function of the library.
    Operation,
}

/// How the plain view prints a call.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// `-t`: when it began, in seconds since Xen booted.
    pub time: bool,
    /// `-r`: how much later than the call before it began.
    pub relative: bool,
    /// `-T`: how long it took.
    pub duration: bool,
    /// `-v`: all runs of frames.
    pub all_frames: bool,
    /// `--fold`: equal calls in a row as one line.
    pub fold: bool,
}

const EXAMPLES: &str = "\
Examples:
  xl dmesg | xen-contig-trace            what the guest did, test by test
  xl dmesg | xen-contig-trace -c         calls, errors, time and share per hypercall and phase
  xl dmesg | xen-contig-trace --longest 1
                                         the longest call: its phase, its test, its frames
  xen-contig-trace -T -e exchange console.log
                                         every exchange and how long it took
  xen-contig-trace --perfetto t.json console.log
                                         a file for https://ui.perfetto.dev

The guest prints a trace if `trace=full` is on its kernel's command line.
docs/TRACING.md explains the lines of the trace, and trace/README.md the tables.";

/// Parses the command line. Ends the program if it is wrong, or asks for help.
pub fn parse() -> Options {
    let mut command = command();
    let matches = command.get_matches_mut();
    from_matches(&matches).unwrap_or_else(|message| {
        command.error(clap::error::ErrorKind::InvalidValue, message).exit()
    })
}

fn flag(name: &'static str, short: char, help: &'static str) -> Arg {
    let flag = Arg::new(name).short(short).help(help).action(ArgAction::SetTrue);
    if name.len() > 1 { flag.long(name) } else { flag }
}

fn long_flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn command() -> Command {
    let views = ["summary", "by", "longest"];
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Show the hypercall trace of a xen-contig guest, from `xl dmesg` or a console log")
        .after_help(EXAMPLES)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The log; standard input if it is absent or `-`"),
        )
        .arg(Arg::new("filter").short('e').value_name("NAMES").action(ArgAction::Append).help(
            "Only calls with one of these names: `memory_op,mmu_update`, `exchange`; \
                       `'!NAME'` leaves a name out",
        ))
        .arg(value("test", "GLOB", "Only calls of tests with a matching name: `'exchange-*'`"))
        .arg(value("vcpu", "N", "Only calls of this vCPU").value_parser(value_parser!(u32)))
        .arg(long_flag("errors", "Only calls that Xen refused, or of which it refused an entry"))
        .arg(
            value("boot", "N|last|all", "Which boot of the guest, counted from 1")
                .default_value("last")
                .value_parser(Boots::parse),
        )
        .arg(flag("t", 't', "Show when each call began, in seconds since Xen booted"))
        .arg(flag("r", 'r', "Show the time since the call above began"))
        .arg(flag("T", 'T', "Show how long each call, operation and test took"))
        .arg(flag("v", 'v', "Show all frames, also of long lists"))
        .arg(long_flag("fold", "Show equal calls in a row as one line, with their total time"))
        .arg(flag("follow", 'f', "Show also the calls that come while the log grows"))
        .arg(
            flag(
                "summary",
                'c',
                "Show calls, errors, time and share per hypercall, phase and error",
            )
            .conflicts_with_all(["by", "longest"]),
        )
        .arg(
            value(
                "by",
                "test|phase|operation",
                "Show the same figures per test, phase or operation",
            )
            .value_parser(["test", "phase", "operation"])
            .conflicts_with("longest"),
        )
        .arg(
            value("longest", "N", "Show the N longest calls, each with its phase, test and frames")
                .value_parser(value_parser!(usize)),
        )
        .arg(
            value("perfetto", "FILE", "Write a timeline for https://ui.perfetto.dev")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("json", "FILE", "Write one JSON object per line; `-` is standard output")
                .value_parser(value_parser!(PathBuf)),
        )
        .mut_arg("follow", |follow| {
            follow.conflicts_with_all(views).conflicts_with_all(["perfetto", "json", "fold"])
        })
}

fn from_matches(matches: &ArgMatches) -> Result<Options, String> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let filters = matches.get_many::<String>("filter").unwrap_or_default();
    let (perfetto, json) = (path("perfetto"), path("json"));
    Ok(Options {
        file: path("file"),
        follow: matches.get_flag("follow"),
        boots: *matches.get_one("boot").expect("the option has a default"),
        selection: Selection {
            filter: Filter::parse(filters.map(String::as_str))?,
            test: matches.get_one::<String>("test").map(|pattern| WildMatch::new(pattern)),
            vcpu: matches.get_one("vcpu").copied(),
            errors: matches.get_flag("errors"),
        },
        columns: Columns {
            time: matches.get_flag("t"),
            relative: matches.get_flag("r"),
            duration: matches.get_flag("T"),
            all_frames: matches.get_flag("v"),
            fold: matches.get_flag("fold"),
        },
        view: view(matches, perfetto.is_some() || json.is_some()),
        perfetto,
        json,
    })
}

fn view(matches: &ArgMatches, exports: bool) -> View {
    let by = matches.get_one::<String>("by").map(String::as_str);
    match (by, matches.get_one("longest")) {
        (Some("test"), _) => View::By(Group::Test),
        (Some("phase"), _) => View::By(Group::Phase),
        (Some(_), _) => View::By(Group::Operation),
        (None, Some(count)) => View::Longest(*count),
        (None, None) if matches.get_flag("summary") => View::Summary,
        (None, None) if exports => View::Nothing,
        (None, None) => View::Plain,
    }
}

/// Makes the options of a command line for a test.
#[cfg(test)]
pub fn of(options: &[&str]) -> Options {
    let matches = command().get_matches_from([&[PROGRAM], options].concat());
    from_matches(&matches).unwrap()
}
