//! Boots Linux as dom0 and has its module measure.

use std::fs;
use std::thread;
use std::time::Duration;

use super::line::{BenchLine, measured};
use crate::boot::{
    CONTROL, DEFAULT_MIB, Devices, MachineClock, MachineSpec, QemuMachine, SERIAL, Threads,
    for_peer,
};
use crate::choice::{GuestMode, KernelArgs};
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::report::Reporter;
use crate::setup::{Archive, Bed, LinuxPeer, resolve, write};

/// Linux's command line. Each boot is to do the same: no random numbers and no random addresses.
const LINUX_ARGS: &str = "console=hvc0 quiet panic=-1 nokaslr random.trust_cpu=off";

/// The last line of the log.
const DONE: &str = "all done";

/// What a boot of Linux measured, or why it measured nothing.
pub type Measured = std::result::Result<Vec<BenchLine>, String>;

/// What a boot of Linux is to measure.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Names the directory of the boot's logs.
    pub name: &'r str,
    /// The entries, as in `bench=`.
    pub entries: &'r str,
    /// The seed of random sequences.
    pub seed: u64,
    /// The time limit.
    pub limit: Duration,
}

/// Boots Linux in a machine like the image's, and measures the entries.
pub fn run(
    bed: &Bed,
    peer: &LinuxPeer,
    request: Request<'_>,
    reporter: &mut Reporter,
) -> Result<Measured> {
    let Request { name, entries, seed, limit } = request;
    let dir = bed.fresh_log_dir(name)?;
    let mut initramfs =
        fs::read(&peer.initramfs).map_err(|e| Error::file("reading", &peer.initramfs, e))?;
    let mut list = Archive::default();
    list.file("bench/entries", entries);
    list.file("bench/seed", seed.to_string());
    initramfs.extend(list.bytes());
    write(&dir.join("initramfs"), &initramfs)?;
    fs::copy(&peer.linux, dir.join("vmlinuz"))
        .map_err(|e| Error::file("copying", &peer.linux, e))?;
    let guest = Guest::new(GuestMode::PvDom0, name, KernelArgs::default(), limit);
    let spec = MachineSpec {
        hypervisor: resolve(&bed.hypervisor)?,
        xen_args: for_peer(&guest, &bed.context.settings.xen_args),
        modules: vec![
            ("vmlinuz".to_owned(), LINUX_ARGS.to_owned()),
            ("initramfs".to_owned(), String::new()),
        ],
        memory: DEFAULT_MIB,
        low_memory: None,
        cpus: 1,
        clock: MachineClock::Instructions,
        threads: Threads::One,
        iommu: false,
        edu: true,
        devices: Devices::default(),
        report_port: false,
        limit,
        gdb: false,
    };
    let mut machine = QemuMachine::start(&spec, &dir, reporter)?;
    let log = wait(&mut machine, reporter);
    machine.stop();
    Ok(log.and_then(|log| match log.contains("bench: bad entry") {
        true => Err(format!("Linux's module refused an entry; see {}/{CONTROL}", dir.display())),
        false => measured(&log),
    }))
}

/// Waits for the end of the log.
fn wait(machine: &mut QemuMachine, reporter: &mut Reporter) -> std::result::Result<String, String> {
    loop {
        // Asked before the log is read, so that nothing that QEMU wrote last is missed.
        let ended = machine.has_ended();
        let log = machine.serial(CONTROL);
        if log.lines().any(|line| line.trim_end() == DONE) {
            return Ok(log);
        }
        if ended || machine.is_overdue() {
            let last = machine.serial(SERIAL).lines().last().unwrap_or_default().to_owned();
            let how = if ended { "ended" } else { "was stopped" };
            let seconds = machine.elapsed().as_secs();
            return Err(format!("Linux {how} after {seconds} s without its log; last: `{last}`"));
        }
        reporter.tick();
        thread::sleep(Duration::from_millis(100));
    }
}
