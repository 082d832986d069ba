//! Fetches Xen, its tools and a dom0 kernel as packages, installs none of them, and makes of
//! them what a boot needs. Every part has a stamp that holds its inputs: done once, it is done
//! again only when those change.

mod apt;
mod cpio;
mod hypervisor;
mod initramfs;
mod libraries;
mod others;
mod packages;
mod peer;
mod space;
mod stamp;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::command;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::guest::GuestVerdict;
use crate::report::Reporter;
use crate::xen::{Release, Xen, hypervisor_in};

pub use cpio::Archive;
pub use hypervisor::check as check_hypervisor;
use initramfs::Dom0Files;
pub use others::OtherKernels;
pub use peer::LinuxPeer;

/// What a boot needs, ready on disk.
#[derive(Clone, Debug)]
pub struct Bed {
    /// What the suite works with.
    pub context: Arc<Context>,
    /// The Xen.
    pub xen: Xen,
    /// `target/bed/<xen>`.
    pub dir: PathBuf,
    /// The hypervisor, as QEMU's multiboot loader takes it.
    pub hypervisor: PathBuf,
    /// The Linux that is dom0 when a guest is a domU. A hypervisor alone has none.
    pub linux: Option<LinuxDom0>,
}

/// The Linux that runs `xl create`.
#[derive(Clone, Debug)]
pub struct LinuxDom0 {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs, without the jobs of a boot.
    pub initramfs: PathBuf,
}

/// Why there are no domUs on a hypervisor alone.
pub const NO_TOOLS: &str = "XEN is a hypervisor without tools, and xl must be of the same build: give \
                            XEN the installed tree (make install DESTDIR=…) to boot domU modes";

impl Bed {
    /// Makes and returns the directory for the logs of a guest.
    pub fn log_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        make_dir(&dir)?;
        Ok(dir)
    }

    /// Empties the directory for the logs of a guest that is about to boot, and returns it.
    pub fn fresh_log_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|e| Error::file("removing", &dir, e))?;
        }
        self.log_dir(name)
    }
}

/// `bed setup`: makes the bed of the chosen Xen.
pub fn run(context: &Arc<Context>, mut reporter: Reporter) -> Result<GuestVerdict> {
    let bed = context.bed(&mut reporter)?;
    reporter.say(&format!("the bed of Xen {} is ready", bed.xen));
    Ok(GuestVerdict::Success)
}

/// Room for the packages, unpacked, and for what is made of them.
const NEEDED_MIB: u64 = 400;

/// Makes the bed of `xen` ready.
pub fn prepare(xen: &Xen, context: &Arc<Context>, reporter: &mut Reporter) -> Result<Bed> {
    let dir = context.settings.target.join(xen.label());
    make_dir(&dir)?;
    let (hypervisor, linux) = match xen {
        Xen::Release(release) => of_release(release, &dir, context, reporter)?,
        Xen::Hypervisor(path) => (own_hypervisor(path, &dir)?, None),
        Xen::Tree(tree) => of_tree(tree, &dir, context, reporter)?,
    };
    Ok(Bed { context: Arc::clone(context), xen: xen.clone(), dir, hypervisor, linux })
}

/// Makes the bed of a release from Debian's packages.
fn of_release(
    release: &Release,
    dir: &Path,
    context: &Context,
    reporter: &mut Reporter,
) -> Result<(PathBuf, Option<LinuxDom0>)> {
    let version = release.version;
    let root = unpacked_packages(release, dir, context, reporter)?;
    let hypervisor = dir.join("xen");
    let kernel = dir.join("vmlinuz");
    let initramfs = dir.join("initramfs.cpio");
    let made = stamp::Stamp::new(
        &dir.join("initramfs.stamp"),
        &format!("{}\n{}", packages::wanted(release), initramfs::inputs()),
    );
    if !made.holds() {
        reporter.step(format!("making the dom0 initramfs for Xen {version}"), "the boot");
        let packed = root.join(format!("boot/xen-{version}-amd64.gz"));
        write(&hypervisor, &hypervisor::unpacked(&packed)?)?;
        let found = find_one(&root.join("boot"), "vmlinuz-")?;
        fs::copy(&found, &kernel).map_err(|e| Error::file("copying", &found, e))?;
        write(&initramfs, &initramfs::build(Dom0Files::of_packages(&root))?)?;
        made.write()?;
    }
    Ok((hypervisor, Some(LinuxDom0 { kernel, initramfs })))
}

/// Makes the bed of an installed tree: Linux and what else is not Xen's come from Debian's newest
/// packages. The initramfs is made each time, because the tree may have been built anew.
fn of_tree(
    tree: &Path,
    dir: &Path,
    context: &Context,
    reporter: &mut Reporter,
) -> Result<(PathBuf, Option<LinuxDom0>)> {
    let hypervisor = own_hypervisor(&hypervisor_in(tree)?, dir)?;
    let releases = Release::all();
    let newest = releases.last().expect("the table of releases has rows");
    let packages = context.settings.target.join(newest.version);
    make_dir(&packages)?;
    let root = unpacked_packages(newest, &packages, context, reporter)?;
    reporter.step(format!("making the dom0 initramfs for Xen {}", tree.display()), "the boot");
    let (kernel, initramfs) = (dir.join("vmlinuz"), dir.join("initramfs.cpio"));
    let found = find_one(&root.join("boot"), "vmlinuz-")?;
    fs::copy(&found, &kernel).map_err(|e| Error::file("copying", &found, e))?;
    write(&initramfs, &initramfs::build(Dom0Files::of_tree(tree, &root))?)?;
    Ok((hypervisor, Some(LinuxDom0 { kernel, initramfs })))
}

/// Fetches and unpacks the packages of a release below its bed, and returns their root.
fn unpacked_packages(
    release: &Release,
    dir: &Path,
    context: &Context,
    reporter: &mut Reporter,
) -> Result<PathBuf> {
    let target = &context.settings.target;
    let version = release.version;
    let stamped = stamp::Stamp::new(&dir.join("root.stamp"), packages::wanted(release).as_str());
    let root = dir.join("root");
    if !stamped.holds() {
        space::require(target, NEEDED_MIB)?;
        let mut debs = Vec::new();
        for group in packages::groups(release) {
            debs.extend(apt::fetch(&group, context, reporter)?);
        }
        reporter.step(format!("unpacking Xen {version}, its tools and Linux"), "the initramfs");
        unpack(&debs, &root)?;
        stamped.write()?;
    }
    Ok(root)
}

/// Copies the user's own hypervisor into the bed, as QEMU takes it.
fn own_hypervisor(path: &Path, dir: &Path) -> Result<PathBuf> {
    let hypervisor = dir.join("xen");
    write(&hypervisor, &hypervisor::unpacked(path)?)?;
    Ok(hypervisor)
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

/// Returns the full path of a file that exists.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::file("resolving", path, e))
}

/// Makes a directory and those above it.
pub fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::file("making the directory", dir, e))
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::file("writing", path, e))
}
