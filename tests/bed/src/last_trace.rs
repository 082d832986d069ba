//! `bed last-trace`: finds the log of the last run that has a hypercall trace.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::choice::GuestMode;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::GuestVerdict;
use crate::report::Reporter;
use crate::settings::Settings;

/// The logs of a guest, in the order of preference.
const LOGS: [&str; 2] = ["xl-dmesg.log", "console.log"];

/// What the first line of a trace contains.
const FIRST_LINE: &str = "# trace version=";

/// Prints the path of the log.
pub fn run(context: &Arc<Context>, _reporter: Reporter) -> Result<GuestVerdict> {
    let settings = &context.settings;
    let xen = settings.xen.as_ref().map(|xen| xen.label());
    let modes = settings.modes.as_deref().unwrap_or(&GuestMode::ALL);
    let found = newest(&settings.target, xen.as_deref(), modes);
    println!("{}", found.ok_or_else(|| no_trace(xen.as_deref(), settings))?.display());
    Ok(GuestVerdict::Success)
}

fn no_trace(xen: Option<&str>, settings: &Settings) -> Error {
    let mode = settings.modes.as_deref().and_then(|modes| match modes {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let of = [mode.map(|mode| format!(" as {mode}")), xen.map(|xen| format!(" on Xen {xen}"))];
    Error::NoTrace { runs: of.into_iter().flatten().collect(), dir: settings.target.clone() }
}

/// Returns the log that was written last, of a guest in one of the modes, with a trace in it.
fn newest(target: &Path, xen: Option<&str>, modes: &[GuestMode]) -> Option<PathBuf> {
    let xens = entries(target).filter(|dir| xen.is_none_or(|xen| dir.ends_with(xen)));
    let guests = xens.flat_map(|dir| entries(&dir).collect::<Vec<_>>());
    let logs = guests.filter(|dir| is_of(dir, modes)).filter_map(|dir| {
        let log = LOGS.iter().map(|log| dir.join(log)).find(|log| has_trace(log))?;
        Some((written(&log)?, log))
    });
    logs.max().map(|(_, log)| log)
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Returns true if the directory is of a guest in one of the modes: its name begins with the mode.
fn is_of(dir: &Path, modes: &[GuestMode]) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    modes.iter().any(|mode| {
        name.strip_prefix(mode.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

fn has_trace(log: &Path) -> bool {
    fs::read(log).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(FIRST_LINE))
}

fn written(log: &Path) -> Option<SystemTime> {
    fs::metadata(log).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_log_with_a_trace_is_found() {
        let target = std::env::temp_dir().join(format!("bed-last-trace-{}", std::process::id()));
        let write = |path: &str, text: &str, seconds| {
            let path = target.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let trace = "(d1) # trace version=1 vcpus=1 ring=4096 calls=all\n";
        write("4.17/pv-domu/console.log", trace, 10);
        write("4.17/pv-domu/xl-dmesg.log", trace, 10);
        write("4.20/pv-domu-traced/console.log", trace, 20);
        write("4.20/pv-domu-traced/xl-dmesg.log", "(XEN) nothing", 20);
        write("4.20/pvh-dom0/xl-dmesg.log", "(XEN) nothing", 30);
        write("4.20/linux-dom0/xl-dmesg.log", trace, 40);
        let found = |xen, modes: &[GuestMode]| {
            let log = newest(&target, xen, modes)?;
            Some(log.strip_prefix(&target).unwrap().display().to_string())
        };
        let all = &GuestMode::ALL;
        assert_eq!(found(None, all).unwrap(), "4.20/pv-domu-traced/console.log");
        assert_eq!(found(Some("4.17"), all).unwrap(), "4.17/pv-domu/xl-dmesg.log");
        assert_eq!(found(None, &[GuestMode::PvhDom0]), None);
        assert_eq!(found(Some("4.2"), all), None);
        fs::remove_dir_all(&target).unwrap();
    }
}
