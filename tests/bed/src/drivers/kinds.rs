//! The drivers: which self-tests try each, with which device.

use std::path::Path;

use super::disk;
use crate::boot::{Devices, NvmeDevice};
use crate::error::Result;
use crate::guest::PassedDevice;

/// A driver that others wrote, as the image runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The crate `virtio-drivers`, with a disk.
    Virtio,
    /// The crate `nvme-driver`.
    Nvme,
    /// The crate `eth-intel`, below the network stack `smoltcp`.
    E1000,
}

/// The size of the virtio disk, in words of 64 bits: 256 KiB.
const VIRTIO_WORDS: usize = 32 << 10;
/// The size of the NVMe disk: 16 MiB.
const NVME_WORDS: usize = 2 << 20;

const VIRTIO_DISK: &str = "virtio.img";
const NVME_DISK: &str = "nvme.img";

impl Driver {
    /// All drivers, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Virtio, Self::Nvme, Self::E1000];

    /// Returns the name that the guest prints, and that the names of its self-tests begin with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Nvme => "nvme",
            Self::E1000 => "e1000",
        }
    }

    /// Returns the self-tests that must have passed.
    pub const fn passed(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio-blk-queue", "virtio-blk-reads", "virtio-blk-writes"],
            Self::Nvme => &["nvme-identify", "nvme-sequential", "nvme-random"],
            Self::E1000 => &["e1000-dhcp", "e1000-failed-start", "e1000-ping", "e1000-tcp"],
        }
    }

    /// Returns its device if dom0 passes it to a driver domain.
    ///
    /// The virtio disk stays in dom0, whose report port is a device of the same kind.
    pub const fn passed_device(self) -> Option<PassedDevice> {
        match self {
            Self::Virtio => None,
            Self::Nvme => Some(PassedDevice::Nvme),
            Self::E1000 => Some(PassedDevice::Nic),
        }
    }

    /// Returns the file of its disk, and the size of that in words of 64 bits.
    const fn disk(self) -> Option<(&'static str, usize)> {
        match self {
            Self::Virtio => Some((VIRTIO_DISK, VIRTIO_WORDS)),
            Self::Nvme => Some((NVME_DISK, NVME_WORDS)),
            Self::E1000 => None,
        }
    }

    /// Adds its device to those of a machine.
    pub fn add_to(self, devices: &mut Devices, seed: u64) {
        match self {
            Self::Virtio => devices.virtio_disk = Some(VIRTIO_DISK),
            Self::Nvme => {
                let serial = format!("{seed:016x}");
                devices.nvme = Some(NvmeDevice { file: NVME_DISK, serial });
            }
            Self::E1000 => devices.e1000 = true,
        }
    }

    /// Makes the files of its device, in the directory of a boot.
    pub fn prepare(self, dir: &Path, seed: u64) -> Result<()> {
        self.disk().map_or(Ok(()), |(file, words)| disk::make(&dir.join(file), words, seed))
    }

    /// Returns whether its disk has what it should have after the guest has ended, seen from outside.
    /// Returns `None` if it has no disk.
    pub fn check(self, dir: &Path, seed: u64) -> Result<Option<std::result::Result<(), String>>> {
        self.disk().map(|(file, words)| disk::check(&dir.join(file), words, seed)).transpose()
    }
}
