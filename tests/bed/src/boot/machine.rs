//! Starts QEMU, reads its serial lines, and makes sure that it ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Devices, Monitor};
use crate::choice::GuestMode;
use crate::command;
use crate::error::{Error, Result};
use crate::report::Reporter;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The hypervisor.
    pub hypervisor: PathBuf,
    /// Xen's command line.
    pub xen_args: String,
    /// Multiboot modules: file names within the boot's directory, each with its command line.
    pub modules: Vec<(String, String)>,
    /// MiB of memory.
    pub memory: u32,
    /// MiB of it below 4 GiB, where not as much as fits. The rest begins at 4 GiB.
    pub low_memory: Option<u32>,
    /// CPUs.
    pub cpus: u32,
    /// What the clock counts.
    pub clock: MachineClock,
    /// What runs the CPUs.
    pub threads: Threads,
    /// Whether Xen needs an IOMMU, as it does for a PVH dom0.
    pub iommu: bool,
    /// Whether QEMU's `edu` device, whose DMA engine drives 28 address bits, is on the PCI bus.
    pub edu: bool,
    /// Other devices on the PCI bus.
    pub devices: Devices,
    /// Whether Linux reports over a virtio port instead of the second serial line. It transfers whole
    /// buffers. Of a serial line each byte is a trap to Xen, so that a megabyte takes minutes.
    pub report_port: bool,
    /// How long the machine may run at all.
    pub limit: Duration,
    /// Whether to wait for a debugger.
    pub gdb: bool,
}

/// What the machine's clock, the TSC included, goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineClock {
    /// The time of day.
    Time,
    /// Instructions, Xen's and the guest's alike: one TSC tick each. Then a figure depends neither
    /// on the host nor on what else it does. The machine has to make do with one CPU.
    Instructions,
}

/// What runs a machine's CPUs while its clock goes by the time.
///
/// On leaving a guest of SVM's (PVH), QEMU 7.2 clears a bit of the CPU's pending interrupts by a plain
/// read and write (`do_vmexit` in `target/i386/tcg/sysemu/svm_helper.c`). An interrupt that another
/// thread raises in between is lost: guests with several vCPUs stood still now and then while these
/// woke each other, in one boot of three at worst with a thread for each CPU; with one for all, rarely,
/// since timers have a thread of their own.
///
/// PV guests with many vCPUs stood still, too, and with one thread they did not: of 32 vCPUs in most
/// boots, of 8 once in some ten boots on a busy host. The cause is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// A thread for each CPU.
    Each,
    /// One thread for all CPUs, in turn.
    One,
    /// One thread for all CPUs and for timers, too: QEMU runs these in it when it counts instructions,
    /// two nanoseconds each here. A boot takes half as long again, and idle time does not pass.
    OneWithTimers,
}

impl Threads {
    /// The most vCPUs of a PV guest that were never seen to stand still with a thread for each CPU.
    const PV_VCPUS: u32 = 4;

    /// Returns true if such a guest may stand still with a thread for each CPU.
    pub fn may_lose_a_wakeup(mode: GuestMode, vcpus: Option<u32>) -> bool {
        let firm = if mode.is_pvh() { 1 } else { Self::PV_VCPUS };
        vcpus.is_some_and(|vcpus| vcpus > firm)
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct QemuMachine {
    child: Child,
    /// QEMU's monitor.
    pub monitor: Monitor,
    dir: PathBuf,
    started: Instant,
    limit: Duration,
    halt: HaltWatch,
}

/// Checks now and then whether every CPU has stopped for good.
#[derive(Debug)]
struct HaltWatch {
    asked: Instant,
    was_halted: bool,
}

/// What is known of a machine that [has halted](QemuMachine::has_halted) without a line of Xen: not
/// whether dom0 powered off or crashed.
pub const SILENT_HALT: &str = "the machine has halted, and Xen printed no reason; leave out of XENARGS what \
                               hides Xen's warnings, such as loglvl=none";

/// The file of what Xen and dom0 print.
pub const SERIAL: &str = "serial.log";
/// The file of Linux's reports.
pub const CONTROL: &str = "control.log";
const QEMU_LOG: &str = "qemu.log";

impl QemuMachine {
    /// Starts the machine, its files in `dir`.
    pub fn start(spec: &MachineSpec, dir: &Path, reporter: &Reporter) -> Result<Self> {
        let log_path = dir.join(QEMU_LOG);
        let log = File::create(&log_path).map_err(|e| Error::file("making", &log_path, e))?;
        // The limit must hold even if this process is killed: `timeout` sees to that.
        let seconds = (spec.limit + Duration::from_secs(30)).as_secs();
        let mut qemu = Command::new("timeout");
        qemu.args(["--foreground", "--kill-after=5"]).arg(seconds.to_string());
        qemu.arg("qemu-system-x86_64").args(arguments(spec)).current_dir(dir);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let command_path = dir.join("qemu.cmd");
        let script = format!("cd \"$(dirname \"$0\")\" || exit\n{}\n", command::shown(&qemu));
        crate::setup::write(&command_path, script.as_bytes())?;
        reporter.echo(&format!("sh {} # qemu-system-x86_64 …", command_path.display()));
        command::output(Command::new("qemu-system-x86_64").arg("--version"))?;
        let started = Instant::now();
        let mut child =
            qemu.spawn().map_err(|e| Error::file("running", Path::new("timeout"), e))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::QemuStart("its pipes are missing".to_owned()));
        };
        match Monitor::open(input, output) {
            Ok(monitor) => {
                let halt = HaltWatch { asked: started, was_halted: false };
                Ok(Self { child, monitor, dir: dir.to_owned(), started, limit: spec.limit, halt })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&log_path).unwrap_or_default();
                Err(Error::QemuStart(format!("{error}\n{}", said.trim_end())))
            }
        }
    }

    /// What has been written to a log so far.
    pub fn serial(&self, file: &str) -> String {
        fs::read(self.dir.join(file))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Returns true if QEMU has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether every CPU has stopped for good, also if Xen did not say so. It asks once a second, and
    /// must find the same twice: a CPU that runs can look halted while QEMU reads its registers.
    pub fn has_halted(&mut self) -> bool {
        if self.halt.asked.elapsed() < Duration::from_secs(1) {
            return false;
        }
        let is_halted = self.monitor.all_halted().unwrap_or(false);
        let was_halted = std::mem::replace(&mut self.halt.was_halted, is_halted);
        self.halt.asked = Instant::now();
        is_halted && was_halted
    }

    /// Returns true if the machine's time is up.
    pub fn is_overdue(&self) -> bool {
        self.started.elapsed() >= self.limit
    }

    /// How long the machine has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends QEMU, politely first.
    pub fn stop(&mut self) {
        self.monitor.quit();
        for _ in 0..50 {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        // `timeout` hands this on to QEMU.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Waits between two readings of the logs of a machine. The last one began at `reading`. A reading of
/// megabytes takes long, and must not keep a processor busy that the machine needs.
pub fn pause(reading: Instant) {
    const LEAST: Duration = Duration::from_millis(100);
    thread::sleep(LEAST.max(reading.elapsed() * 3));
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn arguments(spec: &MachineSpec) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-display", "none", "-no-reboot", "-qmp", "stdio"]);
    // With SMAP on, QEMU 7.2 faults on the first `iret` of a PV guest.
    match spec.clock {
        MachineClock::Time => {
            let threads: &[&str] = match spec.threads {
                Threads::Each => &["-accel", "tcg,thread=multi"],
                Threads::One => &["-accel", "tcg,thread=single"],
                Threads::OneWithTimers => {
                    &["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"]
                }
            };
            add(threads);
            // A PVH guest's `rdtscp` ends the guest: QEMU 7.2 reports it to Xen as `rdtsc`.
            add(&["-cpu", "max,-smap,-rdtscp"]);
        }
        MachineClock::Instructions => {
            add(&["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            // Where a CPU has the first two, Xen copies and clears with `rep movsb` and `rep stosb`,
            // and QEMU counts an instruction for each byte. Random numbers and the time of day would
            // make a difference between two boots of Linux.
            add(&["-cpu", "max,-smap,-erms,-fsrm,-rdrand,-rdseed", "-rtc", "clock=vm"]);
        }
    }
    let low = spec.low_memory.map_or(String::new(), |mib| format!(",max-ram-below-4g={mib}M"));
    if spec.iommu {
        let machine = format!("q35,kernel-irqchip=split{low}");
        add(&["-machine", &machine, "-device", "amd-iommu"]);
    } else {
        add(&["-machine", &format!("pc{low}")]);
    }
    if spec.edu {
        add(&["-device", "edu"]);
    }
    let devices = spec.devices.arguments(spec.iommu);
    add(&devices.iter().map(String::as_str).collect::<Vec<_>>());
    add(&["-smp", &spec.cpus.to_string(), "-m", &spec.memory.to_string()]);
    // Xen writes to the port: see `CONSOLE`. With the options of others it may write to the serial line.
    add(&["-chardev", &format!("file,id=console,path={SERIAL},mux=on")]);
    add(&["-device", "isa-debugcon,iobase=0xe9,chardev=console", "-serial", "chardev:console"]);
    if spec.report_port {
        add(&[
            "-device",
            "virtio-serial-pci",
            "-chardev",
            &format!("file,id=report,path={CONTROL}"),
        ]);
        add(&["-device", "virtserialport,chardev=report"]);
    } else {
        add(&["-serial", &format!("file:{CONTROL}")]);
    }
    if spec.gdb {
        add(&["-gdb", "tcp:127.0.0.1:1234", "-S"]);
    }
    add(&["-kernel", &spec.hypervisor.display().to_string(), "-append", &spec.xen_args]);
    add(&["-initrd", &modules(&spec.modules)]);
    args
}

/// QEMU separates modules by commas, and takes a doubled one for a comma.
fn modules(modules: &[(String, String)]) -> String {
    let each = modules.iter().map(|(file, args)| {
        if args.is_empty() { file.clone() } else { format!("{file} {}", args.replace(',', ",,")) }
    });
    each.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_of_a_command_line_survive_qemu() {
        let list =
            [("image".to_owned(), "selftest=a,b".to_owned()), ("rd".to_owned(), String::new())];
        assert_eq!(modules(&list), "image selftest=a,,b,rd");
    }

    #[test]
    fn guests_that_stand_still_get_one_thread() {
        let may = |mode, vcpus| Threads::may_lose_a_wakeup(mode, Some(vcpus));
        assert!(
            may(GuestMode::PvhDomu, 2) && may(GuestMode::PvhDom0, 2) && may(GuestMode::PvDomu, 8)
        );
        assert!(!may(GuestMode::PvhDomu, 1) && !may(GuestMode::PvDomu, 4));
    }
}
