//! Fetches kernels of other projects, which the suite boots as domUs.

use std::fs;
use std::path::Path;

use super::stamp::Stamp;
use super::{Archive, LinuxDom0, apt, make_dir, packages, unpack};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::report::Reporter;

/// What the Linux runs as its init.
const INIT: &str = include_str!("../own/ramdisk-init.sh");

/// The files of the kernels.
#[derive(Clone, Debug)]
pub struct OtherKernels {
    /// GRUB for PV guests.
    pub grub_pv: Vec<u8>,
    /// GRUB for PVH guests.
    pub grub_pvh: Vec<u8>,
    /// Linux, which boots as either.
    pub linux: Vec<u8>,
    /// The ramdisk of Linux.
    pub ramdisk: Vec<u8>,
}

impl OtherKernels {
    /// Fetches GRUB, and takes the Linux of the bed.
    pub fn prepare(linux: &LinuxDom0, context: &Context, reporter: &mut Reporter) -> Result<Self> {
        let dir = context.settings.target.join("other-kernels");
        make_dir(&dir)?;
        let group = packages::others();
        let root = dir.join("root");
        let stamp = Stamp::new(&dir.join("stamp"), &group.wanted());
        if !stamp.holds() {
            let debs = apt::fetch(&group, context, reporter)?;
            unpack(&debs, &root)?;
            stamp.write()?;
        }
        let read = |path: &Path| fs::read(path).map_err(|e| Error::file("reading", path, e));
        let grub = |name: &str| read(&root.join("usr/lib/grub-xen").join(name));
        let mut ramdisk = Archive::default();
        ramdisk.file("init", INIT);
        ramdisk.file("bin/busybox", read(&root.join("bin/busybox"))?);
        ramdisk.directory("dev");
        Ok(Self {
            grub_pv: grub("grub-x86_64-xen.bin")?,
            grub_pvh: grub("grub-i386-xen_pvh.bin")?,
            linux: read(&linux.kernel)?,
            ramdisk: ramdisk.bytes(),
        })
    }
}
