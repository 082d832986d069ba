//! The root of the small Linux dom0 that runs `xl create`: busybox, Xen's tools and daemons,
//! their libraries, and the modules that Xen's tools talk to the hypervisor through.

use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::{find_one, libraries};
use crate::error::{Error, Result};
use crate::xen::Release;

/// What dom0 runs as its init.
const INIT: &str = include_str!("../domu/init.sh");

const TOOLS: [&str; 6] =
    ["xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper", "xen-mfndump"];

/// Below the kernel's `drivers`, in the order in which they are loaded. The virtio modules drive the
/// port that init reports over.
const MODULES: [&str; 11] = [
    "xen/xen-evtchn",
    "xen/xen-gntdev",
    "xen/xen-gntalloc",
    "xen/xen-privcmd",
    "xen/xenfs/xenfs",
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "char/virtio_console",
];

/// Loaded by name at run time, so that no ELF header tells of it: without it `xl` aborts when
/// one of its threads is cancelled.
const HIDDEN_LIBRARY: &str = "libgcc_s.so.1";

/// What the archive depends on besides the packages.
pub fn inputs() -> String {
    format!("{INIT}\n{}\n", include_str!("initramfs.rs"))
}

/// Makes the archive from the packages under `root`.
pub fn build(release: &Release, root: &Path) -> Result<Vec<u8>> {
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
    archive.file("usr/bin/busybox", read(&first(root, &["usr/bin/busybox", "bin/busybox"])?)?);
    let xen = release.version;
    let tools_dir = format!("usr/lib/xen-{xen}/bin");
    archive.symlink("usr/lib/xen", &format!("xen-{xen}"));
    let mut programs = Vec::new();
    for tool in TOOLS {
        let path = first(root, &[&format!("{tools_dir}/{tool}")])?;
        archive.file(&format!("{tools_dir}/{tool}"), read(&path)?);
        programs.push(path);
    }
    let mut needed = libraries::closure(root, &programs)?;
    let hidden =
        libraries::locate(root, HIDDEN_LIBRARY).ok_or_else(|| missing(root, HIDDEN_LIBRARY))?;
    needed.insert(HIDDEN_LIBRARY.to_owned(), hidden);
    for (name, path) in needed {
        archive.file(&format!("usr/lib/x86_64-linux-gnu/{name}"), read(&path)?);
    }
    let loader = libraries::locate(root, "ld-linux-x86-64.so.2")
        .ok_or_else(|| missing(root, "ld-linux-x86-64.so.2"))?;
    archive.file("usr/lib64/ld-linux-x86-64.so.2", read(&loader)?);
    let scripts = root.join("etc/xen/scripts");
    for entry in fs::read_dir(&scripts).map_err(|_| missing(root, "etc/xen/scripts"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        archive.file(&format!("etc/xen/scripts/{name}"), read(&entry.path())?);
    }
    archive.file("etc/xen/xl.conf", read(&first(root, &["etc/xen/xl.conf"])?)?);
    let modules = find_one(&first(root, &["usr/lib/modules", "lib/modules"])?, "")?;
    for (number, module) in MODULES.iter().enumerate() {
        let path = modules.join(format!("kernel/drivers/{module}.ko"));
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.file(&format!("bed/modules/{number:02}-{name}.ko"), read(&path)?);
    }
    Ok(archive.bytes())
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
