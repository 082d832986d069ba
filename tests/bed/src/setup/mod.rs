//! Fetches Xen, its tools and a dom0 kernel as packages, installs none of them, and makes of
//! them what a boot needs. Every part has a stamp that holds its inputs: done once, it is done
//! again only when those change.

mod apt;
mod cpio;
mod initramfs;
mod libraries;
mod packages;
mod peer;
mod space;
mod stamp;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::choice::XenVersion;
use crate::error::{Error, Result};
use crate::progress::ProgressLog;
use crate::{command, error};

pub use cpio::Archive;
pub use peer::LinuxPeer;

/// What a boot needs, ready on disk.
#[derive(Clone, Debug)]
pub struct Bed {
    /// The Xen release.
    pub xen: XenVersion,
    /// `target/bed/<xen>`.
    pub dir: PathBuf,
    /// The hypervisor, as QEMU's multiboot loader takes it.
    pub hypervisor: PathBuf,
    /// The Linux that is dom0 when the image is a domU.
    pub linux: PathBuf,
    /// Its initramfs, without the jobs of a boot.
    pub initramfs: PathBuf,
}

impl Bed {
    /// Makes and returns the directory for the logs of a guest.
    pub fn log_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        make_dir(&dir)?;
        Ok(dir)
    }
}

/// What was asked of the setup.
#[derive(Clone, Debug)]
pub struct SetupOptions {
    /// Where everything goes, normally `target/bed`.
    pub target: PathBuf,
    /// A Debian mirror to use instead of the machine's own.
    pub mirror: Option<String>,
}

/// Room for the packages, unpacked, and for what is made of them.
const NEEDED_MIB: u64 = 400;

/// Makes the bed of `xen` ready.
pub fn prepare(xen: XenVersion, options: &SetupOptions, progress: &mut ProgressLog) -> Result<Bed> {
    let dir = options.target.join(xen.as_str());
    make_dir(&dir)?;
    let stamped = stamp::Stamp::new(&dir.join("root.stamp"), packages::wanted(xen).as_str());
    let root = dir.join("root");
    if !stamped.holds() {
        space::require(&options.target, NEEDED_MIB)?;
        let mut debs = Vec::new();
        for group in packages::groups(xen) {
            debs.extend(apt::fetch(&group, options, progress)?);
        }
        progress.step(format!("unpacking Xen {xen}, its tools and Linux"), "the initramfs");
        unpack(&debs, &root)?;
        stamped.write()?;
    }
    let hypervisor = dir.join("xen");
    let linux = dir.join("vmlinuz");
    let initramfs = dir.join("initramfs.cpio");
    let made = stamp::Stamp::new(
        &dir.join("initramfs.stamp"),
        &format!("{}\n{}", packages::wanted(xen), initramfs::inputs()),
    );
    if !made.holds() {
        progress.step(format!("making the dom0 initramfs for Xen {xen}"), "the boot");
        let gz = root.join(format!("boot/xen-{xen}-amd64.gz"));
        let raw = command::output(Command::new("gzip").args(["-dc"]).arg(&gz))?;
        if !raw.status.success() {
            return Err(Error::NotInPackages { what: format!("boot/xen-{xen}-amd64.gz"), root });
        }
        write(&hypervisor, &raw.stdout)?;
        let kernel = find_one(&root.join("boot"), "vmlinuz-")?;
        fs::copy(&kernel, &linux).map_err(|e| error::Error::file("copying", &kernel, e))?;
        write(&initramfs, &initramfs::build(xen, &root)?)?;
        made.write()?;
    }
    Ok(Bed { xen, dir, hypervisor, linux, initramfs })
}

/// Unpacks beside the goal first, so that an interrupted run leaves nothing half done.
fn unpack(debs: &[PathBuf], root: &Path) -> Result<()> {
    let partial = root.with_extension("partial");
    for old in [&partial, &root.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|e| Error::file("removing", old, e))?;
        }
    }
    make_dir(&partial)?;
    for deb in debs {
        command::succeed(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&partial))
            .map_err(|error| space::explain(error, root, NEEDED_MIB))?;
    }
    fs::rename(&partial, root).map_err(|e| Error::file("renaming", &partial, e))
}

/// The one file in `dir` whose name begins with `prefix`.
fn find_one(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let missing = || Error::NotInPackages { what: format!("{prefix}*"), root: dir.to_owned() };
    let entries = fs::read_dir(dir).map_err(|_| missing())?;
    let mut names: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    names.sort();
    names.pop().ok_or_else(missing)
}

/// Makes a directory and those above it.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::file("making the directory", dir, e))
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::file("writing", path, e))
}
