//! Makes the Linux that `bench` compares with: Debian's kernel, a module for it that is built here,
//! and an initramfs with little more than the module.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::stamp::Stamp;
use super::{apt, find_one, make_dir, packages, space, write};
use crate::command;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::report::Reporter;

/// What the Linux runs as its init.
const INIT: &str = include_str!("../bench/peer-init.sh");

const KBUILD: &str = include_str!("../../../peers/linux/Kbuild");
const MODULE: &str = include_str!("../../../peers/linux/dmabench.c");

/// Room for the packages and, while the module is built, for Linux's headers.
const NEEDED_MIB: u64 = 300;

/// The Linux, ready on disk.
#[derive(Clone, Debug)]
pub struct LinuxPeer {
    /// `target/bed/linux-peer`.
    pub dir: PathBuf,
    /// The kernel.
    pub linux: PathBuf,
    /// Its initramfs, without the list of what is measured.
    pub initramfs: PathBuf,
}

impl LinuxPeer {
    /// Makes it ready.
    pub fn prepare(context: &Context, reporter: &mut Reporter) -> Result<Self> {
        let dir = context.settings.target.join("linux-peer");
        make_dir(&dir)?;
        let peer = Self { linux: dir.join("vmlinuz"), initramfs: dir.join("initramfs.cpio"), dir };
        let group = packages::peer();
        let inputs = [&group.wanted(), INIT, KBUILD, MODULE, include_str!("peer.rs")].concat();
        let stamp = Stamp::new(&peer.dir.join("stamp"), &inputs);
        if !stamp.holds() {
            space::require(&context.settings.target, NEEDED_MIB)?;
            let debs = apt::fetch(&group, context, reporter)?;
            reporter.step("building the module for Linux", "the boot");
            let work = WorkDir::make()?;
            let module = build(&debs, &work.0)?;
            let kernel = find_one(&work.0.join("boot"), "vmlinuz-")?;
            fs::copy(&kernel, &peer.linux).map_err(|e| Error::file("copying", &kernel, e))?;
            write(&peer.initramfs, &initramfs(&work.0, module)?)?;
            stamp.write()?;
        }
        Ok(peer)
    }
}

/// A directory that is removed on drop. Linux's makefiles take no path with a space in it, so it lies
/// where temporary files do.
struct WorkDir(PathBuf);

impl WorkDir {
    fn make() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("xen-contig-linux-{}", std::process::id()));
        make_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks the packages in `root`, of the kernel itself its image alone, and builds the module.
fn build(debs: &[PathBuf], root: &Path) -> Result<Vec<u8>> {
    for deb in debs {
        // All modules of the kernel would take 400 MB.
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        let members = if name.starts_with("linux-image-") { "./boot/vmlinuz-*" } else { "*" };
        let script = "dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --wildcards \"$3\"";
        let mut unpack = Command::new("sh");
        unpack.args(["-c", script, "sh"]).args([deb.as_os_str(), root.as_os_str()]).arg(members);
        command::succeed(&mut unpack).map_err(|e| space::explain(e, root, NEEDED_MIB))?;
    }
    let headers = headers(&root.join("usr/src"))?;
    // Its one line includes another makefile by the place where the package would be installed.
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(|e| Error::file("reading", &makefile, e))?;
    let here = root.join("usr/src").display().to_string();
    write(&makefile, text.replace("/usr/src", &here).as_bytes())?;
    let module = root.join("module");
    make_dir(&module)?;
    write(&module.join("Kbuild"), KBUILD.as_bytes())?;
    write(&module.join("dmabench.c"), MODULE.as_bytes())?;
    let mut make = Command::new("make");
    // The variables of a `make` that runs the bed are not meant for this one.
    make.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
    make.arg("-C").arg(&headers).arg(format!("M={}", module.display()));
    make.args(["CC=gcc", "modules"]);
    command::succeed(&mut make)?;
    let built = module.join("dmabench.ko");
    fs::read(&built).map_err(|e| Error::file("reading", &built, e))
}

/// The headers for this machine type; others in the same directory are common to all.
fn headers(src: &Path) -> Result<PathBuf> {
    let missing =
        || Error::NotInPackages { what: "linux-headers-*-amd64".to_owned(), root: src.to_owned() };
    let entries = fs::read_dir(src).map_err(|_| missing())?;
    let mut dirs = entries.flatten().map(|entry| entry.path());
    let is_amd64 = |dir: &PathBuf| {
        let name = dir.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        name.starts_with("linux-headers-") && name.ends_with("-amd64")
    };
    dirs.find(is_amd64).ok_or_else(missing)
}

fn initramfs(root: &Path, module: Vec<u8>) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys"] {
        archive.directory(directory);
    }
    let places = ["usr/bin/busybox", "bin/busybox"].map(|place| root.join(place));
    let busybox = places.iter().find(|path| path.exists()).ok_or_else(|| Error::NotInPackages {
        what: "bin/busybox".to_owned(),
        root: root.to_owned(),
    })?;
    let program = fs::read(busybox).map_err(|e| Error::file("reading", busybox, e))?;
    archive.file("bin/busybox", program);
    archive.file("init", INIT);
    archive.file("dmabench.ko", module);
    Ok(archive.bytes())
}
