//! The image as Xen's dom0, with nothing beside it.

use std::time::Instant;

use super::machine::{SERIAL, pause};
use super::{MachineSpec, QemuMachine, SILENT_HALT, Threads, for_image};
use crate::choice::GuestMode;
use crate::error::Result;
use crate::guest::{End, Guest, MachineEnd, SerialLog};
use crate::report::{GuestOutcome, Reporter};
use crate::setup::{Bed, resolve, write};

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
    /// Boots the image, and waits for its end, or for a line of the guest that `enough` accepts.
    pub fn run(
        bed: &Bed,
        guest: &Guest,
        reporter: &mut Reporter,
        enough: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let dir = bed.log_dir(&guest.name)?;
        // A copy within the boot's directory: QEMU takes no file name with a space in it here.
        write(&dir.join("image"), &bed.context.image)?;
        let (mode, vcpus) = (guest.mode, guest.vcpus.unwrap_or(1));
        let machine = MachineSpec {
            hypervisor: resolve(&bed.hypervisor)?,
            xen_args: for_image(guest, &bed.context.settings.xen_args),
            modules: vec![("image".to_owned(), guest.args.as_str().to_owned())],
            memory: guest.machine_mib(),
            low_memory: guest.low_memory,
            cpus: guest.processors.unwrap_or(vcpus.max(2)),
            clock: guest.clock,
            threads: match Threads::may_lose_a_wakeup(mode, Some(vcpus)) {
                true => Threads::OneWithTimers,
                false if mode.is_pvh() => Threads::One,
                false => Threads::Each,
            },
            iommu: mode == GuestMode::PvhDom0 && guest.xen_line.is_none(),
            edu: guest.xen_line.is_none(),
            devices: guest.devices.clone(),
            report_port: false,
            limit: guest.limit,
            gdb: guest.gdb,
        };
        let mut machine = QemuMachine::start(&machine, &dir, reporter)?;
        let end = wait(&mut machine, reporter, enough);
        let seconds = machine.elapsed().as_secs_f64();
        // Read once more: Xen says its last word and dies a moment later.
        let log = SerialLog::split(&machine.serial(SERIAL));
        Ok(Self { log, end, seconds, machine })
    }

    /// Boots the image, waits for its end, and returns the verdict.
    pub fn judged(bed: &Bed, guest: &Guest, reporter: &mut Reporter) -> Result<GuestOutcome> {
        bed.fresh_log_dir(&guest.name)?;
        Self::judged_with_files(bed, guest, reporter)
    }

    /// Like [`judged`](Self::judged), with the files that the boot's directory has.
    pub fn judged_with_files(
        bed: &Bed,
        guest: &Guest,
        reporter: &mut Reporter,
    ) -> Result<GuestOutcome> {
        let mut boot = Self::run(bed, guest, reporter, |line| guest.expect.is_met_by(line))?;
        boot.machine.stop();
        GuestOutcome::of_dom0(bed, guest, boot)
    }
}

fn wait(machine: &mut QemuMachine, reporter: &mut Reporter, enough: impl Fn(&str) -> bool) -> End {
    loop {
        let reading = Instant::now();
        // Asked before the log is read, so that nothing that QEMU wrote last is missed.
        let ended = machine.has_ended();
        let halted = machine.has_halted();
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
        if halted {
            return End::Lost(SILENT_HALT.to_owned());
        }
        if machine.is_overdue() {
            return End::StillRunning;
        }
        reporter.tick();
        pause(reading);
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
