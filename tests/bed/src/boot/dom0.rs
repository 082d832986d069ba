//! The image as Xen's dom0, with nothing beside it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::machine::SERIAL;
use super::{MachineClock, MachineSpec, QemuMachine, Threads, for_image};
use crate::choice::{GuestMode, KernelArgs};
use crate::error::{Error, Result};
use crate::guest::{End, MachineEnd, SerialLog};
use crate::progress::ProgressLog;
use crate::setup::{Bed, write};

/// What is to be booted.
#[derive(Clone, Debug)]
pub struct Dom0Spec {
    /// `pv-dom0` or `pvh-dom0`.
    pub mode: GuestMode,
    /// MiB of the whole machine; Xen gives dom0 nearly all of it.
    pub memory: u32,
    /// MiB of the machine below 4 GiB, where not as much as fits.
    pub low_memory: Option<u32>,
    /// MiB of dom0, where Xen is to keep the rest.
    pub dom0_memory: Option<u32>,
    /// The highest order that Xen exchanges, where not its default (`memop-max-order`).
    pub max_order: Option<u32>,
    /// dom0's vCPUs.
    pub vcpus: u32,
    /// Processors of the machine, where not one for each vCPU.
    pub processors: Option<u32>,
    /// What the machine's clock counts.
    pub clock: MachineClock,
    /// A file in the boot's directory for a virtio disk.
    pub disk: Option<&'static str>,
    /// The kernel command line.
    pub args: KernelArgs,
    /// How long it may take.
    pub limit: Duration,
    /// Whether to wait for a debugger.
    pub gdb: bool,
}

impl Dom0Spec {
    /// An ordinary machine, and in it a dom0 of one vCPU.
    pub fn new(mode: GuestMode, args: KernelArgs, limit: Duration) -> Self {
        Self {
            mode,
            memory: DEFAULT_MIB,
            low_memory: None,
            dom0_memory: None,
            max_order: None,
            vcpus: 1,
            processors: None,
            clock: MachineClock::Time,
            disk: None,
            args,
            limit,
            gdb: false,
        }
    }
}

/// A boot that is over, or that has come to what was waited for.
#[derive(Debug)]
pub struct Dom0Boot {
    /// What was printed.
    pub log: SerialLog,
    /// How it ended; [`End::StillRunning`] if what was waited for came first.
    pub end: End,
    /// How long it took.
    pub seconds: f64,
    /// The machine, should it still be running.
    pub machine: QemuMachine,
}

/// The default memory of a machine for a dom0 mode, in MiB.
pub const DEFAULT_MIB: u32 = 2048;

impl Dom0Boot {
    /// Boots `image`, and waits for its end, or for a line of the guest that `enough` accepts.
    pub fn run(
        bed: &Bed,
        spec: &Dom0Spec,
        image: &[u8],
        dir: &Path,
        progress: &mut ProgressLog,
        enough: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        // A copy within the boot's directory: QEMU takes no file name with a space in it here.
        write(&dir.join("image"), image)?;
        let hypervisor = fs::canonicalize(&bed.hypervisor)
            .map_err(|e| Error::file("resolving", &bed.hypervisor, e))?;
        let machine = MachineSpec {
            hypervisor,
            xen_args: for_image(spec.mode, spec.vcpus, spec.dom0_memory, spec.max_order),
            modules: vec![("image".to_owned(), spec.args.as_str().to_owned())],
            memory: spec.memory,
            low_memory: spec.low_memory,
            cpus: spec.processors.unwrap_or(spec.vcpus.max(2)),
            clock: spec.clock,
            threads: match Threads::may_lose_a_wakeup(spec.mode, Some(spec.vcpus)) {
                true => Threads::OneWithTimers,
                false if spec.mode.is_pvh() => Threads::One,
                false => Threads::Each,
            },
            iommu: spec.mode == GuestMode::PvhDom0,
            edu: true,
            disk: spec.disk,
            report_port: false,
            limit: spec.limit,
            gdb: spec.gdb,
        };
        let mut machine = QemuMachine::start(&machine, dir, progress)?;
        let end = wait(&mut machine, progress, enough);
        let seconds = machine.elapsed().as_secs_f64();
        // Read once more: Xen says its last word and dies a moment later.
        let log = SerialLog::split(&machine.serial(SERIAL));
        Ok(Self { log, end, seconds, machine })
    }
}

fn wait(
    machine: &mut QemuMachine,
    progress: &mut ProgressLog,
    enough: impl Fn(&str) -> bool,
) -> End {
    loop {
        // Asked before the log is read, so that nothing that QEMU wrote last is missed.
        let ended = machine.has_ended();
        let text = machine.serial(SERIAL);
        // A line that is still being written is nothing to act on.
        let log = SerialLog::split(text.rfind('\n').map_or("", |end| &text[..=end]));
        if log.guest.iter().any(|line| enough(line)) {
            return End::StillRunning;
        }
        if let Some(end) = log.machine_end().and_then(|end| confirmed(end, ended, machine)) {
            return end;
        }
        if ended {
            return End::Vanished;
        }
        if machine.is_overdue() {
            return End::StillRunning;
        }
        progress.tick();
        thread::sleep(Duration::from_millis(100));
    }
}

/// Dom0 shares the line with Xen and could print Xen's last words itself. Xen means them if
/// every CPU has stopped for good, or if the machine has reset, which ends QEMU.
fn confirmed(end: MachineEnd, qemu_ended: bool, machine: &mut QemuMachine) -> Option<End> {
    if !qemu_ended && !machine.monitor.all_halted().unwrap_or(false) {
        return None;
    }
    Some(match end {
        MachineEnd::Halted => End::PowerOff,
        MachineEnd::Rebooting => End::Reboot,
        MachineEnd::Dom0Crashed => End::Crash,
        MachineEnd::Panic(line) => End::XenPanic(line),
        MachineEnd::Other(line) => End::OtherReason(line),
    })
}
