//! Xen's command lines, with the reason for each option.

use crate::choice::GuestMode;

/// For every boot.
const COMMON: [&str; 6] = [
    // The first serial port is Xen's and dom0's console.
    "console=com1",
    "com1=115200,8n1",
    // Everything that Xen has to say, of guests too, at no rate limit.
    "loglvl=all",
    "guest_loglvl=all",
    // A crash is to be read, not rebooted over.
    "noreboot",
    // A full trace must fit: into the ring that `xl dmesg` reads, ...
    "conring_size=8M",
];

/// ... and into the serial port's buffer, or Xen drops what comes while it is full. (Synchronous
/// output would drop nothing either, but Xen holds up each boot for three seconds to warn of it.)
const SERIAL_BUFFER: &str = "serial_tx_buffer=4M";

/// Measured with a PVH dom0 on two emulated CPUs: when Xen moves the vCPU from one to the other,
/// the wake-up is lost now and then (2 boots of 8; none of 13 with this option), both CPUs idle,
/// and the guest stands still until the next interrupt.
const STAY: &str = "dom0_vcpus_pin";

/// Xen gives a PV vCPU its vector registers when it first uses them, by `CR0.TS` and `#NM`, which QEMU
/// 7.2 does not raise for `xsave`, `xsaveopt` and `xrstor` (of 24 instructions tried with `CR0.TS` set
/// these three alone went through). So Linux saves and restores a program's registers past Xen. Measured
/// on a busy host: in 7 of 8 sessions a program of dom0 was killed or `xl` aborted, with what another
/// program had had in a register (a list pointer of eight commas); with this option, which has Xen
/// switch all registers at once, in none of 7.
const ALL_REGISTERS: &str = "spec-ctrl=eager-fpu";

/// Returns the command line for the image as dom0. Without `dom0_mib` Xen gives it nearly all memory.
pub fn for_image(
    mode: GuestMode,
    vcpus: u32,
    dom0_mib: Option<u32>,
    max_order: Option<u32>,
) -> String {
    let mut words = COMMON.join(" ");
    words.push_str(&format!(" {SERIAL_BUFFER} dom0_max_vcpus={vcpus} {STAY}"));
    if let Some(mib) = dom0_mib {
        words.push_str(&format!(" dom0_mem={mib}M,max:{mib}M"));
    }
    if let Some(order) = max_order {
        // For domUs, for those with I/O resources, for the control domain, and for the hardware domain.
        words.push_str(&format!(" memop-max-order={order},{order},{order},{order}"));
    }
    if mode == GuestMode::PvhDom0 {
        words.push_str(" dom0=pvh");
    }
    words
}

/// Memory of the Linux dom0 in MiB; the remaining memory is for the domU.
pub const LINUX_MIB: u32 = 512;

/// Returns the command line for Linux as dom0 and the image as domU.
pub fn for_linux() -> String {
    format!(
        "{} {SERIAL_BUFFER} dom0_mem={LINUX_MIB}M,max:{LINUX_MIB}M dom0_max_vcpus=1 {ALL_REGISTERS}",
        COMMON.join(" ")
    )
}

/// Returns the command line for the Linux that the image is compared with: as dom0 like the image.
pub fn for_peer() -> String {
    format!("{} {ALL_REGISTERS}", for_image(GuestMode::PvDom0, 1, None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dom0_memory_is_set_where_it_is_asked_for() {
        assert!(!for_image(GuestMode::PvDom0, 1, None, None).contains("dom0_mem"));
        let pvh = for_image(GuestMode::PvhDom0, 2, None, None);
        assert!(pvh.ends_with("dom0_max_vcpus=2 dom0_vcpus_pin dom0=pvh"), "{pvh}");
        let kept = for_image(GuestMode::PvDom0, 1, Some(1300), None);
        assert!(kept.ends_with("dom0_mem=1300M,max:1300M"), "{kept}");
        let limited = for_image(GuestMode::PvDom0, 1, None, Some(4));
        assert!(limited.ends_with("memop-max-order=4,4,4,4"), "{limited}");
        assert!(for_linux().contains("dom0_mem=512M,max:512M"));
    }
}
