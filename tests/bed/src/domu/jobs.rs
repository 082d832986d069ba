//! The jobs of the Linux dom0, packed as a second archive that follows its initramfs.

use std::path::Path;

use crate::choice::GuestMode;
use crate::error::{Error, Result};
use crate::guest::{Goal, Guest, PassFault};
use crate::own::OwnKernel;
use crate::setup::Archive;

/// Returns what is added to `xl create <config>`: the only difference from the shipped files.
pub fn overrides(guest: &Guest) -> Vec<String> {
    let own = guest.kernel.as_ref();
    let mut words = own.map_or(Vec::new(), |kernel| kernel.overrides(&guest.name));
    words.extend(guest.memory.map(|mib| format!("memory={mib}")));
    words.extend(guest.max_memory.map(|mib| format!("maxmem={mib}")));
    words.extend(guest.vcpus.map(|n| format!("vcpus={n}")));
    words.extend(guest.vcpus.filter(|_| guest.mode == GuestMode::PvhDomu).and_then(stay));
    if !guest.args.as_str().is_empty() {
        let setting = own.map_or("extra", |kernel| kernel.args_setting());
        words.push(format!("{setting}=\"{}\"", guest.args.as_str()));
    }
    if guest.is_recorded {
        words.push(format!("cpus=\"{RECORDED_CPU}\""));
    }
    if guest.goal == Goal::Watch {
        words.push("on_poweroff=\"preserve\"".to_owned());
    }
    words
}

/// Pins the vCPUs, where there are several, to the machine's two processors in turn: the emulation
/// loses wake-ups of a hardware-virtualised vCPU that Xen moves from one to another (see
/// `dom0_vcpus_pin` in `boot/xen_options.rs`), and with several, somebody is always waiting for one.
fn stay(vcpus: u32) -> Option<String> {
    let each: Vec<String> = (0..vcpus).map(|id| format!("\"{}\"", id % 2)).collect();
    (vcpus > 1).then(|| format!("cpus=[{}]", each.join(",")))
}

/// The directory in which `xl` runs, without the slash that it begins with.
const WORK: &str = "bed/work";

/// Returns the path of the configuration, as `xl` sees it.
fn config(guest: &Guest) -> String {
    match guest.kernel {
        Some(_) => OwnKernel::config_path(&guest.name),
        None => guest.config.unwrap_or(guest.mode.xl_config()).to_owned(),
    }
}

/// The configuration of a domU to which dom0 passes PCI devices.
pub const DRIVER_DOMAIN: &str = "xen-configs/driver-domain.cfg";

/// The script that copies the console of a PV guest into Xen's log.
const RELAY: &str = "xen-configs/relay-console.sh";

/// The name of the PV guest in its configuration.
const PV_NAME: &str = "xen-contig-pv";

/// Returns true if dom0 copies the guest's console into Xen's log. Only a trace is worth the time, and
/// a PVH guest writes to Xen's log itself.
fn relays(guest: &Guest) -> bool {
    let is_image = guest.mode == GuestMode::PvDomu && guest.kernel.is_none();
    is_image && guest.args.traces() && guest.goal == Goal::End
}

/// The kinds of records that Xen makes of a guest: the hypercalls of PV guests, the entries of their
/// multicalls, and which vCPU a processor runs (`TRC_PV`, `TRC_SCHED` and the first two sub-classes
/// of each in `public/trace.h`).
const RECORDED_EVENTS: &str = "0x223000";

/// The processor where a guest stays whose hypercalls are recorded, as `init.sh` has it.
const RECORDED_CPU: u32 = 1;

/// Packs the jobs, the image and the configurations, each where a user's `xl create` run from
/// the repository's root would find them.
pub fn pack(guests: &[Guest], image: &[u8], root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file(&format!("{WORK}/target/image/xen-contig"), image);
    for mode in [GuestMode::PvDomu, GuestMode::PvhDomu] {
        add(mode.xl_config(), root, &mut archive)?;
    }
    add(DRIVER_DOMAIN, root, &mut archive)?;
    add(RELAY, root, &mut archive)?;
    for (number, guest) in guests.iter().enumerate() {
        let dir = format!("bed/jobs/{number:03}");
        let overrides: String = overrides(guest).iter().map(|word| format!("{word}\n")).collect();
        let goal = match guest.goal {
            Goal::End => "end",
            Goal::Probe => "probe",
            Goal::Watch => "watch",
            Goal::Save => "save",
            Goal::Destroy => "destroy",
            Goal::Stay => "stay",
        };
        archive.file(&format!("{dir}/name"), guest.name.as_str());
        if let Some(kernel) = &guest.kernel {
            kernel.pack(&guest.name, WORK, &mut archive);
        }
        if guest.is_shaken {
            archive.file(&format!("{dir}/shake"), "");
        }
        if !guest.passed.is_empty() {
            let ids: String = guest.passed.iter().map(|it| format!("{}\n", it.ids())).collect();
            archive.file(&format!("{dir}/pass"), ids);
            if guest.pass_fault == Some(PassFault::NoBackend) {
                archive.file(&format!("{dir}/unbind"), "");
            }
        }
        if relays(guest) {
            archive.file(&format!("{dir}/relay"), PV_NAME);
        }
        if guest.is_recorded {
            archive.file(&format!("{dir}/record"), RECORDED_EVENTS);
        }
        if guest.streams {
            archive.file(&format!("{dir}/stream"), "");
        }
        let verdict = (guest.goal == Goal::Destroy).then_some("^Test result: ");
        if let Some(pattern) = guest.expect.pattern().or(verdict) {
            archive.file(&format!("{dir}/pattern"), pattern);
        }
        archive.file(&format!("{dir}/config"), config(guest));
        archive.file(&format!("{dir}/overrides"), overrides);
        archive.file(&format!("{dir}/seconds"), guest.limit.as_secs().to_string());
        archive.file(&format!("{dir}/goal"), goal);
        if let Some(mib) = guest.reduced_to {
            archive.file(&format!("{dir}/mem-set"), mib.to_string());
        }
    }
    Ok(archive.bytes())
}

/// Adds a file of the repository, where a user who runs `xl` in the repository's root has it.
fn add(file: &str, root: &Path, archive: &mut Archive) -> Result<()> {
    let path = root.join(file);
    let bytes = std::fs::read(&path).map_err(|e| Error::file("reading", &path, e))?;
    archive.file(&format!("{WORK}/{file}"), bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::choice::KernelArgs;

    #[test]
    fn overrides_are_those_asked_for_and_no_others() {
        let guest = |mode, text| {
            let args = KernelArgs::new(text).unwrap();
            Guest::new(mode, "x", args, Duration::from_secs(1))
        };
        assert_eq!(overrides(&guest(GuestMode::PvDomu, "")), Vec::<String>::new());
        let pv = Guest {
            memory: Some(64),
            max_memory: Some(96),
            vcpus: Some(2),
            ..guest(GuestMode::PvDomu, "seed=1 trace=full")
        };
        assert_eq!(
            overrides(&pv),
            ["memory=64", "maxmem=96", "vcpus=2", "extra=\"seed=1 trace=full\""]
        );
        let pvh = Guest { vcpus: Some(2), ..guest(GuestMode::PvhDomu, "") };
        assert_eq!(overrides(&pvh), ["vcpus=2", "cpus=[\"0\",\"1\"]"]);
        let recorded = Guest { is_recorded: true, ..guest(GuestMode::PvDomu, "") };
        assert_eq!(overrides(&recorded), ["cpus=\"1\""]);
        let one = Guest { vcpus: Some(1), ..pvh };
        assert_eq!(overrides(&one), ["vcpus=1"], "a single vCPU waits for no other one");
    }

    #[test]
    fn dom0_copies_the_traces_of_pv_guests_alone() {
        let copies = |mode, text| {
            let args = KernelArgs::new(text).unwrap();
            relays(&Guest::new(mode, "x", args, Duration::from_secs(1)))
        };
        assert!(copies(GuestMode::PvDomu, "trace=full"));
        assert!(!copies(GuestMode::PvDomu, "seed=1"));
        assert!(!copies(GuestMode::PvhDomu, "trace=full"));
        assert!(!copies(GuestMode::PvDomu, "trace=full selftest=c75-save-and-restore"));
    }

    #[test]
    fn the_relay_names_the_guest_of_the_configuration() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let config = std::fs::read_to_string(root.join(GuestMode::PvDomu.xl_config())).unwrap();
        assert!(config.contains(&format!("name   = \"{PV_NAME}\"")), "{config}");
    }
}
