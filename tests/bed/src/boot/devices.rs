//! Devices on the PCI bus of a machine that drivers are tried with.

/// Devices on the PCI bus of a machine that drivers are tried with. The files are in the boot's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// The file of a virtio disk.
    pub virtio_disk: Option<&'static str>,
    /// An NVMe disk.
    pub nvme: Option<NvmeDevice>,
    /// Whether there is an e1000 network card, on QEMU's user network.
    pub e1000: bool,
}

/// An NVMe disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeDevice {
    /// Its file.
    pub file: &'static str,
    /// Its serial number, at most 20 characters.
    pub serial: String,
}

impl Devices {
    /// Returns QEMU's options. The accesses of all devices go through the IOMMU where there is one.
    pub fn arguments(&self, iommu: bool) -> Vec<String> {
        let mut args = Vec::new();
        let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
        let drive = |file, id| format!("file={file},format=raw,if=none,id={id}");
        if let Some(file) = self.virtio_disk {
            add("-drive", drive(file, "disk"));
            // Without this option a virtio device bypasses the IOMMU.
            let platform = if iommu { ",iommu_platform=on" } else { "" };
            add("-device", format!("virtio-blk-pci,drive=disk,disable-legacy=on{platform}"));
        }
        if let Some(NvmeDevice { file, serial }) = &self.nvme {
            add("-drive", drive(file, "nvme"));
            add("-device", format!("nvme,drive=nvme,serial={serial}"));
        }
        if self.e1000 {
            add("-netdev", "user,id=net".to_owned());
            // Nothing boots from the network here, so the card needs no ROM.
            add("-device", "e1000,netdev=net,romfile=".to_owned());
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_the_devices_that_are_asked_for() {
        assert!(Devices::default().arguments(true).is_empty());
        let nvme = Some(NvmeDevice { file: "n.img", serial: "17".to_owned() });
        let all = Devices { virtio_disk: Some("v.img"), nvme, e1000: true };
        let text = all.arguments(false).join(" ");
        assert!(text.contains("file=v.img") && text.contains("file=n.img"), "{text}");
        assert!(
            text.contains("nvme,drive=nvme,serial=17")
                && text.contains("e1000,netdev=net")
                && !text.contains("iommu"),
            "{text}"
        );
        assert!(all.arguments(true).join(" ").contains("iommu_platform=on"));
    }
}
