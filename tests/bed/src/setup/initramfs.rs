//! The root of the small Linux dom0 that runs `xl create`: busybox, Xen's tools and daemons,
//! their libraries, and the modules that Xen's tools talk to the hypervisor through.

use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::{find_one, libraries};
use crate::error::{Error, Result};

/// What dom0 runs as its init.
const INIT: &str = include_str!("../domu/init.sh");

const TOOLS: [&str; 7] = [
    "xl",
    "xenstored",
    "xenconsoled",
    "xen-init-dom0",
    "libxl-save-helper",
    "xen-mfndump",
    "xentrace",
];

/// Below the kernel's `drivers`, in the order in which they are loaded. The virtio modules drive the
/// port that init reports over.
const MODULES: [&str; 12] = [
    "xen/xen-evtchn",
    "xen/xen-gntdev",
    "xen/xen-gntalloc",
    "xen/xen-privcmd",
    "xen/xenfs/xenfs",
    "xen/xen-pciback/xen-pciback",
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "char/virtio_console",
];

/// What the archive depends on besides the packages.
pub fn inputs() -> String {
    format!("{INIT}\n{}\n", include_str!("initramfs.rs"))
}

/// Where the files of a dom0 come from.
#[derive(Clone, Copy, Debug)]
pub struct Dom0Files<'a> {
    /// Xen's tools and libraries, with the paths that they have when installed.
    xen: &'a Path,
    /// Unpacked packages of Debian with Linux and busybox.
    linux: &'a Path,
    /// Systems of which one has the other libraries.
    systems: [&'a Path; 2],
}

impl<'a> Dom0Files<'a> {
    /// A dom0 of unpacked packages alone.
    pub fn of_packages(root: &'a Path) -> Self {
        Self { xen: root, linux: root, systems: [root; 2] }
    }

    /// A dom0 with the tools of `tree`, into which `make install DESTDIR=…` of Xen was directed. It was
    /// built on this machine if all libraries are here, or else for the Debian release of `packages`.
    pub fn of_tree(tree: &'a Path, packages: &'a Path) -> Self {
        Self { xen: tree, linux: packages, systems: [Path::new("/"), packages] }
    }
}

/// Makes the archive.
pub fn build(files: Dom0Files<'_>) -> Result<Vec<u8>> {
    let Dom0Files { xen, linux, systems } = files;
    let mut archive = Archive::default();
    for directory in ["bed", "dev", "proc", "run", "sys", "tmp", "usr/lib64", "var/lib/xen"] {
        archive.directory(directory);
    }
    archive.directory("var/lib/xenstored");
    archive.directory("var/log/xen/console");
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
    ] {
        archive.symlink(link, target);
    }
    archive.file("init", INIT);
    archive.file("usr/bin/busybox", read(&first(linux, &["usr/bin/busybox", "bin/busybox"])?)?);
    // Xen's programs find each other by the paths that they were built with, so each keeps its own.
    let mut programs = Vec::new();
    let mut places = Vec::new();
    for tool in TOOLS {
        let (place, path) = locate(xen, tool)?;
        archive.file(&format!("{place}/{tool}"), read(&path)?);
        programs.push(path);
        if !places.contains(&format!("/{place}")) {
            places.push(format!("/{place}"));
        }
    }
    archive.file("bed/path", places.join(":"));
    for (name, path) in libraries::closure(xen, &systems, &programs)? {
        let place = if name == libraries::LOADER { "usr/lib64" } else { LIBRARIES };
        archive.file(&format!("{place}/{name}"), read(&path)?);
    }
    for config in ["etc/xen", "usr/local/etc/xen"] {
        let general = xen.join(config).join("xl.conf");
        if general.exists() {
            archive.file(&format!("{config}/xl.conf"), read(&general)?);
        }
        let scripts = fs::read_dir(xen.join(config).join("scripts"));
        for entry in scripts.into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            archive.file(&format!("{config}/scripts/{name}"), read(&entry.path())?);
        }
    }
    let modules = find_one(&first(linux, &["usr/lib/modules", "lib/modules"])?, "")?;
    for (number, module) in MODULES.iter().enumerate() {
        let path = modules.join(format!("kernel/drivers/{module}.ko"));
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.file(&format!("bed/modules/{number:02}-{name}.ko"), read(&path)?);
    }
    Ok(archive.bytes())
}

/// Where the libraries are in the archive, whatever their place on the system that they come from.
/// `init.sh` names it to the loader.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Returns the directory of a tool, relative to the root, and its file. Debian has scripts of the same
/// names in other directories.
fn locate(root: &Path, tool: &str) -> Result<(String, PathBuf)> {
    let mut places: Vec<String> = Vec::new();
    for prefix in ["usr/local", "usr"] {
        places.extend(["sbin", "bin"].map(|dir| format!("{prefix}/{dir}")));
        for library in ["lib", "lib64", "libexec"] {
            let dir = format!("{prefix}/{library}");
            let mut names: Vec<String> = fs::read_dir(root.join(&dir))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name == "xen" || name.starts_with("xen-"))
                .collect();
            names.sort();
            places.extend(names.iter().map(|name| format!("{dir}/{name}/bin")));
        }
    }
    let found = places.into_iter().find_map(|place| {
        let path = root.join(&place).join(tool);
        let is_program = fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
        is_program.then_some((place, path))
    });
    found.ok_or_else(|| Error::Tools {
        root: root.to_owned(),
        problem: format!("the program {tool} is in no `sbin`, `bin` or `lib/xen/bin` there"),
    })
}

fn first(root: &Path, candidates: &[&str]) -> Result<PathBuf> {
    let mut paths = candidates.iter().map(|name| root.join(name));
    paths.find(|path| path.exists()).ok_or_else(|| missing(root, candidates[0]))
}

fn missing(root: &Path, what: &str) -> Error {
    Error::NotInPackages { what: what.to_owned(), root: root.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::file("reading", path, e))
}
