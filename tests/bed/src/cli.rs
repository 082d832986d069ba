//! The command line of the bed itself.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::choice::{GuestMode, KernelArgs, XenVersion, parse_count};
use crate::error::{Error, Result};
use crate::witness::ProbeRequest;

/// What `bed --help` prints.
pub const HELP: &str = "\
bed: boots xen-contig under a real Xen in QEMU and says what came of it

usage: bed setup | run | test | test-long | witness | conformance | soak | vcpus | virtio | bench
       [options]

  setup    fetch Xen, its tools and a dom0 kernel (installing none), make the bed
  run      boot the image in the chosen modes; the exit status is the worst verdict:
           0 success, 3 skip, 4 error, 5 failure, 6 crash, 7 timeout
  test     every mode, guests that misbehave, wrong input, the outside witness, guests that are
           saved and restored, `vcpus` and `virtio`
  test-long
           `soak`, `vcpus`, `conformance` and `bench`, every limit of the exchange's order, many
           restarts, and the fuzzer, on both Xens
  witness  have the image fill a buffer, and read it from below Xen
  conformance
           try every row of docs/CONFORMANCE.md on each Xen and print the table
  soak     100,000 random operations of the allocator as PV dom0 and as PV domU, and Xen's own
           view of the domU's memory before and after
  vcpus    one, two and four vCPUs in every mode, and 100,000 random operations of four at once
  virtio   a driver for virtio disks on the library's adapter, as dom0: its disk is made before and
           read afterwards
  bench    instructions and hypercalls of allocations as dom0, side by side with Linux's, and of
           mapping and purging

options:
  --xen 4.17|4.20    the Xen release [4.17; `conformance`, `vcpus`, `virtio`,
                     `test-long`: both; `test`: vCPUs, virtio and saved guests on both]
  --mode MODE        pv-dom0, pv-domu, pvh-dom0, pvh-domu or all [all]
  --vcpus N          vCPUs of the guest [1]
  --memory MIB       domU modes: the domain's memory [as in xen-configs/];
                     dom0 modes: the machine's [2048], of which Xen leaves dom0 nearly all
  --args TEXT        the guest kernel's command line
  --image PATH       the image [target/image/xen-contig]
  --timeout SECONDS  the limit of each guest [240]
  --probe O:B        what `witness` asks for: order and address bits [9:30]
  --model FILE       what `cargo test` printed, for the model's column of `conformance`
                     and `test-long`
  --fuzz FILE        the fuzzer that `test-long` runs; without it none is run
  --seconds N        seconds that `test-long` fuzzes each target [600]
  --compare FILE     what `bench` compares with: the bench.json of an earlier run
  --into FILE        a document with a place for the table of `bench`
  --target DIR       where the bed is made [target/bed]
  --mirror URL       a Debian mirror [the machine's own]
  --gdb              dom0 modes: stop at the first instruction and wait for a debugger on
                     TCP port 1234 of this machine; the time limit is then an hour
";

/// What the bed is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the bed.
    Setup,
    /// Boot guests.
    Boot(Suite),
    /// Explain.
    Help,
}

/// The guests that are booted, and what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The image in the chosen modes.
    Run,
    /// The whole suite of `make test`.
    Test,
    /// What takes too long for `make test`.
    Long,
    /// Memory as seen from below Xen.
    Witness,
    /// The table of what Xen does.
    Conformance,
    /// Many random operations.
    Soak,
    /// Several vCPUs.
    Vcpus,
    /// A virtio disk.
    Virtio,
    /// Counted instructions.
    Bench,
}

/// The words for the suites.
const SUITES: [(&str, Suite); 9] = [
    ("run", Suite::Run),
    ("test", Suite::Test),
    ("test-long", Suite::Long),
    ("witness", Suite::Witness),
    ("conformance", Suite::Conformance),
    ("soak", Suite::Soak),
    ("vcpus", Suite::Vcpus),
    ("virtio", Suite::Virtio),
    ("bench", Suite::Bench),
];

/// The command line, read.
#[derive(Clone, Debug)]
pub struct Cli {
    /// What to do.
    pub action: Action,
    /// `--xen`
    pub xen: XenVersion,
    /// Whether it was given.
    pub xen_chosen: bool,
    /// `--mode`
    pub modes: Vec<GuestMode>,
    /// `--vcpus`
    pub vcpus: Option<u32>,
    /// `--memory`
    pub memory: Option<u32>,
    /// `--args`
    pub args: KernelArgs,
    /// `--image`
    pub image: PathBuf,
    /// `--timeout`
    pub timeout: Duration,
    /// `--probe`
    pub probe: ProbeRequest,
    /// `--model`
    pub model: Option<PathBuf>,
    /// `--fuzz`
    pub fuzz: Option<PathBuf>,
    /// `--seconds`
    pub seconds: u32,
    /// `--compare`
    pub compare: Option<PathBuf>,
    /// `--into`
    pub into: Option<PathBuf>,
    /// `--target`
    pub target: PathBuf,
    /// `--mirror`
    pub mirror: Option<String>,
    /// `--gdb`
    pub gdb: bool,
}

const MAX_MIB: u32 = 1 << 20;
const MAX_VCPUS: u32 = 32;
const MAX_SECONDS: u32 = 86_400;

impl Cli {
    /// The Xens of a command that goes by all of them: the one that was chosen, or else all.
    pub fn xens(&self) -> Vec<XenVersion> {
        if self.xen_chosen { vec![self.xen] } else { XenVersion::ALL.to_vec() }
    }

    /// Reads the command line.
    pub fn parse(mut parser: lexopt::Parser) -> Result<Self> {
        let mut cli = Self {
            action: Action::Help,
            xen: XenVersion::V4_17,
            xen_chosen: false,
            modes: GuestMode::ALL.to_vec(),
            vcpus: None,
            memory: None,
            args: KernelArgs::default(),
            image: PathBuf::from("target/image/xen-contig"),
            timeout: Duration::from_secs(240),
            probe: ProbeRequest { order: 9, bits: 30, seed: 0 },
            model: None,
            fuzz: None,
            seconds: 600,
            compare: None,
            into: None,
            target: PathBuf::from("target/bed"),
            mirror: None,
            gdb: false,
        };
        let mut chosen = None;
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Short('h') | Long("help") => return Ok(Self { action: Action::Help, ..cli }),
                Long("xen") => {
                    cli.xen = text(&mut parser)?.parse()?;
                    cli.xen_chosen = true;
                }
                Long("mode") => cli.modes = GuestMode::parse_choice(&text(&mut parser)?)?,
                Long("vcpus") => {
                    cli.vcpus = Some(parse_count("--vcpus", &text(&mut parser)?, MAX_VCPUS)?)
                }
                Long("memory") => {
                    cli.memory = Some(parse_count("--memory", &text(&mut parser)?, MAX_MIB)?)
                }
                Long("args") => cli.args = KernelArgs::new(&text(&mut parser)?)?,
                Long("image") => cli.image = text(&mut parser)?.into(),
                Long("timeout") => {
                    let seconds = parse_count("--timeout", &text(&mut parser)?, MAX_SECONDS)?;
                    cli.timeout = Duration::from_secs(seconds.into());
                }
                Long("probe") => cli.probe = text(&mut parser)?.parse()?,
                Long("model") => cli.model = Some(text(&mut parser)?.into()),
                Long("fuzz") => cli.fuzz = Some(text(&mut parser)?.into()),
                Long("seconds") => {
                    cli.seconds = parse_count("--seconds", &text(&mut parser)?, MAX_SECONDS)?;
                }
                Long("compare") => cli.compare = Some(text(&mut parser)?.into()),
                Long("into") => cli.into = Some(text(&mut parser)?.into()),
                Long("target") => cli.target = text(&mut parser)?.into(),
                Long("mirror") => cli.mirror = Some(text(&mut parser)?),
                Long("gdb") => {
                    cli.gdb = true;
                    cli.timeout = Duration::from_secs(3600);
                }
                Value(word) if chosen.is_none() => chosen = Some(action(&word.to_string_lossy())?),
                other => return Err(usage(other.unexpected())),
            }
        }
        cli.action = chosen.ok_or_else(|| Error::Usage("no command was given".to_owned()))?;
        Ok(cli)
    }
}

fn action(word: &str) -> Result<Action> {
    match word {
        "setup" => Ok(Action::Setup),
        "help" => Ok(Action::Help),
        _ => {
            let suite = SUITES.iter().find(|(name, _)| *name == word);
            let unknown = || Error::Usage(format!("there is no command {word:?}"));
            suite.map(|(_, suite)| Action::Boot(*suite)).ok_or_else(unknown)
        }
    }
}

fn usage(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

fn text(parser: &mut lexopt::Parser) -> Result<String> {
    let value = parser.value().map_err(usage)?;
    value.into_string().map_err(|raw| Error::Usage(format!("{raw:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli> {
        Cli::parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn a_whole_command_line() {
        let cli =
            parse("run --xen 4.20 --mode pvh-domu --vcpus 2 --memory 64 --timeout 9").unwrap();
        assert_eq!((cli.action, cli.xen), (Action::Boot(Suite::Run), XenVersion::V4_20));
        assert_eq!(cli.modes, [GuestMode::PvhDomu]);
        assert_eq!((cli.vcpus, cli.memory), (Some(2), Some(64)));
        assert_eq!(cli.timeout, Duration::from_secs(9));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("", "no command"),
            ("walk", "walk"),
            ("run --mode xx", "xx"),
            ("run --xen 5.0", "5.0"),
            ("run --memory much", "much"),
            ("run --colour", "colour"),
            ("run run", "run"),
            ("witness --probe 9", "`9`"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
