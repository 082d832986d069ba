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

    /// Returns the name that the guest prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Nvme => "nvme",
            Self::E1000 => "e1000",
        }
    }

    /// Returns the pattern of its self-tests.
    pub const fn pattern(self) -> &'static str {
        match self {
            Self::Virtio => "virtio-*",
            Self::Nvme => "nvme-*",
            Self::E1000 => "e1000-*",
        }
    }

    /// Returns the self-tests that must have passed.
    pub const fn passed(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio-blk-queue", "virtio-blk-reads", "virtio-blk-writes"],
            Self::Nvme => &["nvme-identify", "nvme-sequential", "nvme-random"],
            Self::E1000 => &["e1000-dhcp", "e1000-ping", "e1000-tcp"],
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
        match self {
            Self::Virtio => disk::make(&dir.join(VIRTIO_DISK), VIRTIO_WORDS, seed),
            Self::Nvme => disk::make(&dir.join(NVME_DISK), NVME_WORDS, seed),
            Self::E1000 => Ok(()),
        }
    }

    /// Whether its device has what it should have after the guest has ended, seen from outside. `None` if
    /// nothing is to be seen.
    pub fn check(self, dir: &Path, seed: u64) -> Result<Option<std::result::Result<(), String>>> {
        match self {
            Self::Virtio => disk::check(&dir.join(VIRTIO_DISK), VIRTIO_WORDS, seed).map(Some),
            Self::Nvme => disk::check(&dir.join(NVME_DISK), NVME_WORDS, seed).map(Some),
            // The server has seen what the card sent.
            Self::E1000 => Ok(None),
        }
    }
}
