//! A kernel of the user's own, with the `xl` configuration that boots it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::XlConfig;
use super::format;
use crate::choice::GuestMode;
use crate::error::{Error, Result};
use crate::setup::Archive;

/// What the user names.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The kernel, if not as the configuration says.
    pub kernel: Option<PathBuf>,
    /// The `xl` configuration, if there is one.
    pub config: Option<PathBuf>,
    /// The mode, if not as the configuration says.
    pub kind: Option<GuestMode>,
}

/// A kernel of the user's own, read from its files.
#[derive(Clone, Debug)]
pub struct OwnKernel {
    /// The mode, which the type of the guest decides.
    pub mode: GuestMode,
    config: XlConfig,
    kernel: Vec<u8>,
    ramdisk: Option<Vec<u8>>,
    /// The configuration says another type, or none.
    changes_type: bool,
}

/// The configuration of a kernel that comes without one.
const CONFIG: &str = "name = \"guest\"\nmemory = 128\nvcpus = 1\n";

impl OwnKernel {
    /// Reads the files.
    pub fn read(source: &Source) -> Result<Arc<Self>> {
        let config = match &source.config {
            Some(path) => XlConfig::new(
                fs::read_to_string(path).map_err(|e| Error::file("reading CFG", path, e))?,
            ),
            None => XlConfig::new(CONFIG.to_owned()),
        };
        let named = |setting: &str| {
            let value = config.string(setting)?;
            Some(found(Path::new(&value), source.config.as_deref()))
        };
        let kernel = source.kernel.clone().or_else(|| named("kernel")).ok_or(Error::NoKernel)?;
        let read = |path: &Path| fs::read(path).map_err(|e| Error::file("reading", path, e));
        let ramdisk = named("ramdisk").map(|path| read(&path)).transpose()?;
        let configured = config.string("type").or_else(|| config.string("builder"));
        let configured = configured.map(|kind| mode_of(&kind)).transpose()?;
        let mode = source.kind.or(configured).unwrap_or(GuestMode::PvhDomu);
        let changes_type = configured != Some(mode);
        let bytes = read(&kernel)?;
        if let Some(problem) = format::problem(&bytes, mode) {
            return Err(Error::BadKernel { path: kernel, problem });
        }
        Ok(Arc::new(Self { mode, kernel: bytes, config, ramdisk, changes_type }))
    }

    /// Returns a kernel with a ramdisk and without a configuration of its own.
    pub fn with_ramdisk(mode: GuestMode, kernel: Vec<u8>, ramdisk: Option<Vec<u8>>) -> Arc<Self> {
        let config = XlConfig::new(CONFIG.to_owned());
        Arc::new(Self { mode, config, kernel, ramdisk, changes_type: true })
    }

    /// Returns the bytes that `xl` loads.
    pub fn size(&self) -> usize {
        self.kernel.len() + self.ramdisk.as_ref().map_or(0, Vec::len)
    }

    /// Returns the MiB of the guest, if the configuration says them.
    pub fn memory(&self) -> Option<u32> {
        self.config.memory()
    }

    /// Returns the vCPUs of the guest, if the configuration says them.
    pub fn vcpus(&self) -> Option<u32> {
        self.config.vcpus()
    }

    /// Returns what the user should know before the boot.
    pub fn notices(&self) -> Vec<String> {
        let devices = self.config.devices().into_iter();
        let left_out = |name| {
            format!(
                "CFG has `{name}`, which is left out: the dom0 of the bed serves no such devices"
            )
        };
        devices.map(left_out).collect()
    }

    /// Returns the path of the configuration of the guest `name`, as `xl` sees it.
    pub fn config_path(name: &str) -> String {
        format!("guests/{name}/guest.cfg")
    }

    /// Adds the files of the guest `name` under the directory in which `xl` runs.
    pub fn pack(&self, name: &str, work: &str, archive: &mut Archive) {
        let dir = format!("{work}/guests/{name}");
        archive.file(&format!("{dir}/guest.cfg"), self.config.text());
        archive.file(&format!("{dir}/kernel"), self.kernel.as_slice());
        if let Some(ramdisk) = &self.ramdisk {
            archive.file(&format!("{dir}/ramdisk"), ramdisk.as_slice());
        }
    }

    /// Returns the setting with the command line: `xl` ignores `extra` if there is `cmdline`.
    pub fn args_setting(&self) -> &'static str {
        if self.config.string("cmdline").is_some() { "cmdline" } else { "extra" }
    }

    /// Returns what `xl create` changes of the configuration.
    pub fn overrides(&self, name: &str) -> Vec<String> {
        let mut words = vec![format!("kernel=\"guests/{name}/kernel\"")];
        if self.ramdisk.is_some() {
            words.push(format!("ramdisk=\"guests/{name}/ramdisk\""));
        }
        if self.changes_type {
            let kind = if self.mode.is_pvh() { "pvh" } else { "pv" };
            words.push(format!("type=\"{kind}\""));
        }
        words.extend(self.config.devices().into_iter().map(|name| format!("{name}=[]")));
        // Otherwise xl would start the guest again, or keep it.
        let events = ["poweroff", "reboot", "crash"];
        words.extend(events.map(|event| format!("on_{event}=\"destroy\"")));
        words
    }
}

/// Returns the path of a file that a configuration names. `xl` takes it from the directory where it is
/// run; the bed tries the directory of the configuration, too.
fn found(path: &Path, config: Option<&Path>) -> PathBuf {
    let beside = config.and_then(Path::parent).map(|dir| dir.join(path));
    match beside {
        Some(beside) if !path.exists() && beside.exists() => beside,
        _ => path.to_owned(),
    }
}

fn mode_of(kind: &str) -> Result<GuestMode> {
    // What `builder` called a PV guest.
    GuestMode::of_type(if kind == "generic" { "pv" } else { kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_files_beside_it() {
        let dir = std::env::temp_dir().join(format!("bed-own-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let config = dir.join("guest.cfg");
        fs::write(&config, "type='pv'\nkernel='k'\nramdisk='r'\nvif=['x']\n").unwrap();
        let read = |source: &Source| OwnKernel::read(source).map_err(|error| error.to_string());
        let both = Source { config: Some(config.clone()), ..Source::default() };
        assert!(read(&both).unwrap_err().contains("`r`"));
        fs::write(dir.join("r"), "ramdisk").unwrap();
        fs::write(dir.join("k"), "text").unwrap();
        let text = read(&both).unwrap_err();
        assert!(text.contains("/k`") && text.contains("not an ELF file"), "{text}");
        let [_, _, kernel] = format::tests::kernels();
        fs::write(dir.join("k"), kernel).unwrap();
        let own = read(&both).unwrap();
        assert_eq!(own.mode, GuestMode::PvDomu);
        let words = own.overrides("x").join(" ");
        assert!(
            words.contains("ramdisk=\"guests/x/ramdisk\"") && words.contains("vif=[]"),
            "{words}"
        );
        assert!(!words.contains("type="), "{words}");
        assert!(own.notices()[0].contains("`vif`"));
        let pvh = read(&Source { kind: Some(GuestMode::PvhDomu), ..both.clone() }).unwrap();
        assert!(pvh.overrides("x").contains(&"type=\"pvh\"".to_owned()));
        fs::write(&config, "type='hvm'\nkernel='k'\n").unwrap();
        assert!(read(&both).unwrap_err().contains("`hvm`"));
        fs::write(&config, "type='pv'\n").unwrap();
        assert!(read(&both).unwrap_err().contains("KERNEL"));
        let alone = Source { kernel: Some(dir.join("k")), ..Source::default() };
        assert_eq!(read(&alone).unwrap().mode, GuestMode::PvhDomu);
        fs::remove_dir_all(&dir).unwrap();
    }
}
