//! The commands of the bed: what each does, and which options it takes.

use std::sync::Arc;

use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::GuestVerdict;
use crate::report::Reporter;
use crate::settings::{self, Settings};
use crate::{
    bench, configurations, conformance, drivers, gdb, last_trace, long, modes, own, setup, soak,
    suite, vcpus, witness,
};

/// What a command does. It returns the worst verdict.
pub type Run = fn(&Arc<Context>, Reporter) -> Result<GuestVerdict>;

/// Checks the files that a command line names.
pub type Check = fn(&Settings) -> Result<()>;

/// Of a command that names no files of its own.
const NO_FILES: Check = |_| Ok(());

/// A command.
pub struct CommandRow {
    /// The word on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    about: &'static str,
    /// The options that it takes besides [`COMMON`] and [`BOOT`].
    options: &'static [&'static str],
    /// Whether it boots the image.
    pub needs_image: bool,
    /// Whether it only reads what other runs have left: it neither waits for them nor drops their results.
    pub only_reads: bool,
    /// The function that checks the files that the command line names, before anything else is done.
    pub check: Check,
    /// The function that does it.
    pub run: Run,
}

impl CommandRow {
    /// Returns true if the command takes the option.
    fn takes(&self, option: &str) -> bool {
        let boot: &[&str] = if self.needs_image { &BOOT } else { &[] };
        self.options.iter().chain(&COMMON).chain(boot).any(|name| *name == option)
    }
}

/// The options of every command.
const COMMON: [&str; 3] = ["target", "mirror", "xen"];

/// The options of every command that boots the image.
const BOOT: [&str; 2] = ["image", "xen-args"];

/// All commands.
const COMMANDS: [CommandRow; 16] = [
    CommandRow {
        name: "setup",
        about: "Fetch Xen, its tools and a dom0 kernel, installing none of them",
        options: &[],
        needs_image: false,
        only_reads: false,
        check: NO_FILES,
        run: setup::run,
    },
    CommandRow {
        name: "run",
        about: "Boot the image in the chosen modes",
        options: &["mode", "vcpus", "memory", "args", "timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: modes::run,
    },
    CommandRow {
        name: "gdb",
        about: "Boot the image in one mode, or another kernel, in a machine that waits for a debugger",
        options: &["kernel", "cfg", "type", "mode", "vcpus", "memory", "args"],
        needs_image: true,
        only_reads: false,
        check: gdb::check,
        run: gdb::run,
    },
    CommandRow {
        name: "guest",
        about: "Boot another kernel by xl create, and classify its end",
        options: &[
            "kernel", "cfg", "type", "expect", "vcpus", "memory", "args", "timeout", "xen-args",
        ],
        needs_image: false,
        only_reads: false,
        check: own::check,
        run: own::run,
    },
    CommandRow {
        name: "test",
        about: "Every mode, guests that misbehave, wrong input, the outside witness, guests that \
                are saved and restored, `vcpus` and some of `drivers`",
        options: &["timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: suite::run,
    },
    CommandRow {
        name: "test-long",
        about: "`drivers`, `soak`, `vcpus`, `conformance`, `bench`, odd configurations, many restarts, and \
                the fuzzer, on all releases",
        options: &["timeout", "model", "fuzz", "seconds"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: long::run,
    },
    CommandRow {
        name: "configurations",
        about: "Every limit of the exchange's order, and domains and machines of odd sizes",
        options: &[],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: configurations::run,
    },
    CommandRow {
        name: "last-trace",
        about: "Print the path of the log of the last run that has a hypercall trace",
        options: &["mode"],
        needs_image: false,
        only_reads: true,
        check: NO_FILES,
        run: last_trace::run,
    },
    CommandRow {
        name: "witness",
        about: "Have the image fill a buffer, and read it from below Xen",
        options: &["probe"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: witness::run,
    },
    CommandRow {
        name: "conformance",
        about: "Try every row of docs/CONFORMANCE.md on each release and print the table",
        options: &["vcpus", "memory", "timeout", "model"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: conformance::run,
    },
    CommandRow {
        name: "soak",
        about: "100,000 random operations of the allocator as PV dom0 and as PV domU, and Xen's \
                own view of the domU's memory before and after",
        options: &["vcpus", "memory", "args", "timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: soak::run,
    },
    CommandRow {
        name: "vcpus",
        about: "One, two and four vCPUs in every mode, and 100,000 random operations of four",
        options: &["timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: vcpus::run,
    },
    CommandRow {
        name: "virtio",
        about: "A driver for virtio disks on the library's adapter, as dom0",
        options: &["timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: drivers::virtio,
    },
    CommandRow {
        name: "drivers",
        about: "Drivers that others wrote on the library's adapters, as dom0 and in a driver domain",
        options: &["timeout"],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: drivers::run,
    },
    CommandRow {
        name: "driver-domain",
        about: "Drivers in a PV domU, on PCI devices that a Linux dom0 passes to it",
        options: &[],
        needs_image: true,
        only_reads: false,
        check: NO_FILES,
        run: drivers::domain,
    },
    CommandRow {
        name: "bench",
        about: "Instructions and hypercalls of allocations as dom0, side by side with Linux's",
        options: &["args", "timeout", "compare", "into"],
        needs_image: true,
        only_reads: false,
        check: bench::check,
        run: bench::run,
    },
];

/// What follows the options in `bed --help`.
const STATUS: &str = "Exit status: 0 success, 3 skip, 4 error, 5 failure, 6 crash, 7 timeout; of \
                      several guests the worst.";

/// Reads a command line. `None` means that help was asked for, and printed.
pub fn parse(
    words: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> Result<Option<(&'static CommandRow, ArgMatches)>> {
    let matches = match grammar().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return Ok(None);
        }
        Err(error) => return Err(Error::Usage(error.to_string())),
    };
    let Some((name, matches)) = matches.subcommand() else { return Ok(None) };
    let row = COMMANDS.iter().find(|row| row.name == name);
    Ok(row.map(|row| (row, matches.clone())))
}

fn grammar() -> Command {
    let commands = COMMANDS.iter().map(|row| {
        Command::new(row.name)
            .about(row.about)
            .after_help(STATUS)
            .args(settings::options(|name| row.takes(name)))
    });
    Command::new("bed")
        .about("Boots guests under a real Xen in QEMU and says what came of them")
        .after_help(STATUS)
        .subcommand_required(true)
        .arg_required_else_help(false)
        .subcommands(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
        for option in COMMANDS.iter().flat_map(|row| row.options).chain(&COMMON).chain(&BOOT) {
            assert_eq!(settings::options(|name| name == *option).len(), 1, "{option}");
        }
    }

    #[test]
    fn errors_name_the_value_and_what_is_meant() {
        let error = |line: &str| {
            let words = std::iter::once("bed").chain(line.split_whitespace());
            parse(words).err().expect(line).to_string()
        };
        assert!(error("rum").contains("run"), "{}", error("rum"));
        assert!(error("run --vcpus 0").contains("vcpus"), "{}", error("run --vcpus 0"));
        assert!(error("run --vcpu 1").contains("--vcpus"), "{}", error("run --vcpu 1"));
        assert!(error("run --mode pv-domx").contains("pv-domx"));
        assert!(error("run --xen 4.18").contains("4.20"), "{}", error("run --xen 4.18"));
        assert!(error("test --memory 64").contains("--memory"), "`test` takes no memory");
        assert!(error("run --args seed=\"1\"").contains("seed"));
        assert!(error("").contains("subcommand"), "{}", error(""));
    }
}
