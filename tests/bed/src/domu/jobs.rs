//! The jobs of the Linux dom0, packed as a second archive that follows its initramfs.

use std::path::Path;
use std::time::Duration;

use crate::choice::{GuestMode, KernelArgs};
use crate::error::{Error, Result};
use crate::setup::Archive;

/// When a job is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The domain has ended, or its time is up.
    End,
    /// It has printed its `probe:` line; the domain is left running.
    Probe,
    /// The domain has ended. Dom0 recorded what Xen says of its memory before it ran, and again
    /// after its end, while `xl` preserved it.
    Watch,
    /// The domain has ended, after it was saved twice: once to be kept, and once to be restored.
    Save,
}

/// The self-test that waits for somebody who saves the domain.
const SAVED: &str = "c75-save-and-restore";

impl Goal {
    /// What a domain with this command line wants done.
    pub fn of(args: &KernelArgs) -> Self {
        let named = |word: &str| {
            word.strip_prefix("selftest=").is_some_and(|it| it.split(',').any(|name| name == SAVED))
        };
        if args.as_str().split_whitespace().any(named) { Self::Save } else { Self::End }
    }
}

/// One `xl create`.
#[derive(Clone, Debug)]
pub struct DomuJob {
    /// Names the job in reports and its log directory.
    pub name: String,
    /// `pv-domu` or `pvh-domu`.
    pub mode: GuestMode,
    /// MiB, where not as configured.
    pub memory: Option<u32>,
    /// MiB that the domain may have (`maxmem`), where more than it has.
    pub max_memory: Option<u32>,
    /// MiB to which `xl mem-set` reduces the domain before it runs.
    pub reduced_to: Option<u32>,
    /// vCPUs, where not as configured.
    pub vcpus: Option<u32>,
    /// The kernel command line.
    pub args: KernelArgs,
    /// How long the domain may run.
    pub limit: Duration,
    /// When the job is over.
    pub goal: Goal,
}

impl DomuJob {
    /// What is added to `xl create <config>`: the only difference from the shipped files.
    pub fn overrides(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.memory.map(|mib| format!("memory={mib}")));
        words.extend(self.max_memory.map(|mib| format!("maxmem={mib}")));
        words.extend(self.vcpus.map(|n| format!("vcpus={n}")));
        words.extend(self.vcpus.filter(|_| self.mode == GuestMode::PvhDomu).and_then(stay));
        if !self.args.as_str().is_empty() {
            words.push(format!("extra=\"{}\"", self.args.as_str()));
        }
        if self.goal == Goal::Watch {
            words.push("on_poweroff=\"preserve\"".to_owned());
        }
        words
    }
}

/// Pins the vCPUs, where there are several, to the machine's two processors in turn: the emulation
/// loses wake-ups of a hardware-virtualised vCPU that Xen moves from one to another (see
/// `dom0_vcpus_pin` in `boot/xen_options.rs`), and with several, somebody is always waiting for one.
fn stay(vcpus: u32) -> Option<String> {
    let each: Vec<String> = (0..vcpus).map(|id| format!("\"{}\"", id % 2)).collect();
    (vcpus > 1).then(|| format!("cpus=[{}]", each.join(",")))
}

/// Packs the jobs, the image and the configurations, each where a user's `xl create` run from
/// the repository's root would find them.
pub fn pack(jobs: &[DomuJob], image: &[u8], root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("bed/work/target/image/xen-contig", image);
    for mode in [GuestMode::PvDomu, GuestMode::PvhDomu] {
        let path = root.join(mode.xl_config());
        let text = std::fs::read(&path).map_err(|e| Error::file("reading", &path, e))?;
        archive.file(&format!("bed/work/{}", mode.xl_config()), text);
    }
    for (number, job) in jobs.iter().enumerate() {
        let dir = format!("bed/jobs/{number:03}");
        let overrides: String = job.overrides().iter().map(|word| format!("{word}\n")).collect();
        let goal = match job.goal {
            Goal::End => "end",
            Goal::Probe => "probe",
            Goal::Watch => "watch",
            Goal::Save => "save",
        };
        archive.file(&format!("{dir}/name"), job.name.as_str());
        archive.file(&format!("{dir}/config"), job.mode.xl_config());
        archive.file(&format!("{dir}/overrides"), overrides);
        archive.file(&format!("{dir}/seconds"), job.limit.as_secs().to_string());
        archive.file(&format!("{dir}/goal"), goal);
        if let Some(mib) = job.reduced_to {
            archive.file(&format!("{dir}/mem-set"), mib.to_string());
        }
    }
    Ok(archive.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_to_be_saved_is_saved() {
        let goal = |text| Goal::of(&KernelArgs::new(text).unwrap());
        assert_eq!(goal("trace=full selftest=a,c75-save-and-restore"), Goal::Save);
        assert_eq!(goal("selftest=c7*,accounts-balanced"), Goal::End);
        assert_eq!(goal(""), Goal::End);
    }

    #[test]
    fn overrides_are_those_asked_for_and_no_others() {
        let mut job = DomuJob {
            name: "pv-domu".to_owned(),
            mode: GuestMode::PvDomu,
            memory: None,
            max_memory: None,
            reduced_to: None,
            vcpus: None,
            args: KernelArgs::default(),
            limit: Duration::from_secs(1),
            goal: Goal::End,
        };
        assert_eq!(job.overrides(), Vec::<String>::new());
        job.memory = Some(64);
        job.max_memory = Some(96);
        job.vcpus = Some(2);
        job.args = KernelArgs::new("seed=1 trace=full").unwrap();
        assert_eq!(
            job.overrides(),
            ["memory=64", "maxmem=96", "vcpus=2", "extra=\"seed=1 trace=full\""]
        );
        let (memory, max_memory, args) = (None, None, KernelArgs::default());
        job = DomuJob { mode: GuestMode::PvhDomu, args, memory, max_memory, ..job };
        assert_eq!(job.overrides(), ["vcpus=2", "cpus=[\"0\",\"1\"]"]);
        job.vcpus = Some(1);
        assert_eq!(job.overrides(), ["vcpus=1"], "alone it has nobody to wait for");
    }
}
