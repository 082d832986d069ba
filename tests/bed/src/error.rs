//! Everything that can go wrong on the host's side, each naming the value and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the bed or of its surroundings; never a verdict on a guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--mode` names no mode.
    #[error("MODE is `{given}`, but must be pv-dom0, pv-domu, pvh-dom0, pvh-domu or all")]
    UnknownMode {
        /// What was given.
        given: String,
    },
    /// `--xen` names neither a release nor a path.
    #[error(
        "XEN is `{given}`, but must be one of {releases}, or the path of a hypervisor or of an \
         installed Xen tree that exists"
    )]
    UnknownXen {
        /// What was given.
        given: String,
        /// The releases that the bed can fetch.
        releases: String,
    },
    /// An installed tree has no hypervisor, or several.
    #[error(
        "XEN is the tree `{}`, which must have boot/xen.gz or one boot/xen-*.gz; it has {}",
        .tree.display(), named(found)
    )]
    NoHypervisor {
        /// The tree.
        tree: PathBuf,
        /// The files that could be meant.
        found: Vec<PathBuf>,
    },
    /// A hypervisor that QEMU cannot boot.
    #[error("the hypervisor `{}` is {problem}", .path.display())]
    BadHypervisor {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to give.
        problem: &'static str,
    },
    /// Options for Xen's command line that quoting would change.
    #[error(
        "XENARGS is `{given}`, which contains {bad:?}; leave out quotes, backslashes and control \
         characters"
    )]
    BadXenArgs {
        /// What was given.
        given: String,
        /// The first character that is refused.
        bad: char,
    },
    /// No port of this host can be listened at.
    #[error("listening at a free TCP port of 127.0.0.1: {0}; a network card's driver needs one")]
    NoPort(String),
    /// A mode that needs Xen's tools, which are missing.
    #[error("{mode} cannot be booted: {why}")]
    NoTools {
        /// The mode.
        mode: crate::choice::GuestMode,
        /// Why there are no tools.
        why: String,
    },
    /// No log with a hypercall trace.
    #[error(
        "no run{runs} has left a hypercall trace in {dir}; record one with make run ARGS=trace=full, and the \
         same MODE and XEN"
    )]
    NoTrace {
        /// Which runs are meant, in words after `run`.
        runs: String,
        /// Where the logs are.
        dir: PathBuf,
    },
    /// A type of guest that the bed cannot boot.
    #[error(
        "the type of the guest is `{given}`, but must be pv or pvh: the bed has no device model for \
         other types; TYPE= overrides the configuration"
    )]
    BadType {
        /// What was given.
        given: String,
    },
    /// More memory than this host has.
    #[error(
        "MEMORY is `{mib}` (or `memory` in CFG), but on this host the guest can have at most {most} \
         MiB"
    )]
    TooMuchMemory {
        /// What was asked for.
        mib: u32,
        /// What the host has for the guest.
        most: u32,
    },
    /// Less memory than the guest needs in any case.
    #[error("MEMORY is `{mib}` (or `memory` in CFG), but {what} need at least {least} MiB")]
    TooLittleMemory {
        /// What was asked for.
        mib: u32,
        /// The least.
        least: u32,
        /// What needs it.
        what: &'static str,
    },
    /// Neither the command line nor the configuration names a kernel.
    #[error("KERNEL is not given, and CFG has no `kernel = \"…\"`: name the kernel to boot")]
    NoKernel,
    /// A file that `xl create` cannot boot.
    #[error(
        "the kernel `{}` is {problem}. KERNEL must be an ELF file for x86 with notes for Xen, also \
         compressed by gzip, or a bzImage of Linux", .path.display()
    )]
    BadKernel {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: String,
    },
    /// `--expect` has an unknown value.
    #[error("EXPECT is `{given}`, but must be ktap, xtf, or regex:PATTERN")]
    BadExpect {
        /// What was given.
        given: String,
    },
    /// The pattern of `--expect` is malformed.
    #[error("EXPECT is `{given}`, whose pattern is malformed: {why}")]
    BadPattern {
        /// What was given.
        given: String,
        /// What the library for regular expressions says.
        why: String,
    },
    /// A debugger follows one guest.
    #[error("MODE is `all`, but a debugger needs one mode: pv-dom0, pv-domu, pvh-dom0 or pvh-domu")]
    OneMode,
    /// The JUnit file cannot be written.
    #[error("making junit.xml: {0}")]
    Junit(String),
    /// `--probe` is not `<order>:<address bits>`.
    #[error("the probe is `{given}`, but must be <order>:<address bits>, such as 9:32")]
    BadProbe {
        /// What was given.
        given: String,
    },
    /// A kernel command line that quoting would change.
    #[error(
        "ARGS is `{given}`, which contains {bad:?}, and it would not reach the guest unchanged; \
         leave out quotes, backslashes and control characters"
    )]
    BadKernelArgs {
        /// What was given.
        given: String,
        /// The first character that is refused.
        bad: char,
    },
    /// Any other mistake on the command line, in the words of the parser.
    #[error("{0}")]
    Usage(String),
    /// There is no image.
    #[error(
        "there is no image at `{}`: build it with `make image`, or name another", .path.display()
    )]
    NoImage {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The image is not an x86-64 ELF executable.
    #[error("the image `{}` is {problem}; it must be a 64-bit x86 ELF executable", .path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: String,
    },
    /// A program that the bed calls is missing.
    #[error("`{program}` is not installed: run `make setup`, or `apt-get install {package}`")]
    MissingProgram {
        /// The program.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that the bed calls failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// The Debian mirror can't be reached.
    #[error(
        "the Debian mirror {mirror} can't be reached while {what}: check the network (and \
         http_proxy), then run the same command again; what was fetched already is kept.\n{output}"
    )]
    Network {
        /// The mirror.
        mirror: String,
        /// What the bed was doing.
        what: String,
        /// What apt said.
        output: String,
    },
    /// The mirror has no such package.
    #[error("the mirror's {suite} has no package that the bed needs:\n{output}")]
    PackageNotFound {
        /// The Debian release.
        suite: &'static str,
        /// What apt said.
        output: String,
    },
    /// A file that should be in an unpacked package is not.
    #[error(
        "{what} is in none of the packages under `{}`: the mirror's packages have \
         changed their layout; remove `target/bed` and try again, or adapt tests/bed/src/setup", .root.display()
    )]
    NotInPackages {
        /// What was looked for.
        what: String,
        /// Where.
        root: PathBuf,
    },
    /// Xen's tools lack something that they need to run in dom0.
    #[error("Xen's tools under `{}` cannot run in the bed: {problem}", .root.display())]
    Tools {
        /// Where the tools are.
        root: PathBuf,
        /// What they lack.
        problem: String,
    },
    /// Too little disk space, seen before or after the fact.
    #[error("the disk that holds `{}` is full: the bed needs {needed_mib} MiB there, {} are free; \
             free some space (`make clean` removes the bed) and run the same command again",
             .path.display(), .free_mib)]
    DiskFull {
        /// The directory.
        path: PathBuf,
        /// What is needed.
        needed_mib: u64,
        /// What is free.
        free_mib: u64,
    },
    /// A file could not be read, written or made.
    #[error("{doing} `{}`: {source}", .path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// QEMU did not start, or left without a word.
    #[error("QEMU did not start: {0}")]
    QemuStart(String),
    /// QEMU's monitor refused a command, or did not answer.
    #[error("QEMU's monitor, asked to `{command}`: {problem}")]
    Monitor {
        /// The command.
        command: String,
        /// The answer.
        problem: String,
    },
}

impl Error {
    /// Wraps an I/O error with what was being done to which file. A full disk gets its own
    /// error.
    pub fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull { path: path.to_owned(), needed_mib: 1, free_mib: 0 };
        }
        Self::File { doing, path: path.to_owned(), source }
    }
}

/// Returns the names of files for a message.
fn named(files: &[PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" and ") }
}

/// A result of the bed.
pub type Result<T> = std::result::Result<T, Error>;
