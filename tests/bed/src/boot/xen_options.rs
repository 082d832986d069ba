//! Xen's command lines, with the reason for each option.

use crate::choice::GuestMode;
use crate::guest::Guest;

/// Xen and dom0 print to port 0xe9 (`XEN_HVM_DEBUGCONS_IOPORT`), which QEMU writes to a file. Nothing is
/// lost: Xen waits for each byte. Of a serial line each byte costs the emulation ten times as much:
/// 1.9 MB that dom0 printed took 34 to 40 s, and by the port 3.4 s.
const CONSOLE: &str = "console=xen";

/// For every boot.
const COMMON: [&str; 6] = [
    CONSOLE,
    // Everything that Xen has to say, of guests too, at no rate limit.
    "loglvl=all",
    "guest_loglvl=all",
    // A crash is to be read, not rebooted over.
    "noreboot",
    // What dom0 prints is in the log that `xl dmesg` reads, too. By dom0, the trace of a PV domU gets there.
    "console_to_ring",
    // A full trace of all tests must fit into that log.
    "conring_size=8M",
];

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

/// Returns the command line for the image as dom0, `added` included. Unless the guest says how much
/// memory it has, Xen gives it nearly all.
pub fn for_image(guest: &Guest, added: &str) -> String {
    if let Some(line) = guest.xen_line {
        return joined(&[line.to_owned(), added.to_owned()]);
    }
    let vcpus = guest.vcpus.unwrap_or(1);
    let mut words = vec![
        COMMON.join(" "),
        format!("dom0_max_vcpus={vcpus} {STAY}"),
        guest.dom0_memory.map_or(String::new(), |mib| format!("dom0_mem={mib}M,max:{mib}M")),
        guest.xen_args.clone(),
    ];
    if guest.mode == GuestMode::PvhDom0 {
        words.push("dom0=pvh".to_owned());
    }
    words.push(added.to_owned());
    joined(&words)
}

/// Returns the words in one line, without the empty ones.
fn joined(words: &[String]) -> String {
    let words: Vec<_> = words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect();
    words.join(" ")
}

/// Memory of the Linux dom0 in MiB; the remaining memory is for the domU.
pub const LINUX_MIB: u32 = 512;

/// Xen scrubs no memory at boot. Otherwise Xen prefers memory that it has scrubbed already. A domain that is
/// made while Xen still scrubs the memory above lies low, and a device of few address bits reaches all of it.
const NO_SCRUBBING: &str = "bootscrub=0";

/// Returns the command line for Linux as dom0 and the image as domU. If dom0 passes devices, the domU's
/// memory must be as high as possible.
pub fn for_linux(passes_devices: bool, added: &str) -> String {
    let memory = format!("dom0_mem={LINUX_MIB}M,max:{LINUX_MIB}M dom0_max_vcpus=1");
    let scrubbing = if passes_devices { NO_SCRUBBING } else { "" };
    let words = [COMMON.join(" "), memory, ALL_REGISTERS.to_owned(), scrubbing.to_owned()];
    joined(&[joined(&words), added.to_owned()])
}

/// Returns the command line for the Linux that the image is compared with, which is `peer`.
pub fn for_peer(peer: &Guest, added: &str) -> String {
    format!("{} {ALL_REGISTERS}", for_image(peer, added))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::choice::KernelArgs;

    #[test]
    fn options_are_there_where_they_are_asked_for() {
        let guest = |mode| Guest::new(mode, "x", KernelArgs::default(), Duration::from_secs(1));
        let pv = guest(GuestMode::PvDom0);
        assert!(!for_image(&pv, "").contains("dom0_mem"));
        assert!(for_image(&pv, "").ends_with(STAY));
        let pvh = Guest { vcpus: Some(2), ..guest(GuestMode::PvhDom0) };
        assert!(for_image(&pvh, "").ends_with("dom0_max_vcpus=2 dom0_vcpus_pin dom0=pvh"));
        let kept = Guest { dom0_memory: Some(1300), ..pv.clone() };
        assert!(for_image(&kept, "").ends_with("dom0_mem=1300M,max:1300M"));
        let limited = for_image(&pv.with_max_order(4), "dom0_mem=1G");
        assert!(limited.ends_with("memop-max-order=4,4,4,4 dom0_mem=1G"), "{limited}");
        let exact = Guest { xen_line: Some("console=com1"), ..guest(GuestMode::PvhDom0) };
        assert_eq!(for_image(&exact, "noapic"), "console=com1 noapic");
        assert!(for_linux(false, "").contains("dom0_mem=512M,max:512M"));
        assert!(for_linux(false, "noapic").ends_with(" noapic"));
        assert!(for_linux(true, "").ends_with(" bootscrub=0"));
    }
}
