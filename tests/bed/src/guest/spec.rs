//! A guest that is to be booted.

use std::sync::Arc;
use std::time::Duration;

use super::Expect;
use crate::boot::{DEFAULT_MIB, Devices, MachineClock};
use crate::choice::{GuestMode, KernelArgs};
use crate::own::OwnKernel;
use crate::parallel::Need;

/// A guest that is to be booted: as dom0 in a machine of its own, or by `xl create`.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Names the guest and the directory of its logs.
    pub name: String,
    /// The mode.
    pub mode: GuestMode,
    /// A kernel of its own, for a domU that does not boot the image.
    pub kernel: Option<Arc<OwnKernel>>,
    /// How it says that it succeeded.
    pub expect: Expect,
    /// Whether its console is printed while it runs.
    pub streams: bool,
    /// The kernel command line.
    pub args: KernelArgs,
    /// The time limit.
    pub limit: Duration,
    /// When the guest has done what it is booted for.
    pub goal: Goal,
    /// MiB of a domU, if not as configured; MiB of the machine of a dom0, if not [`DEFAULT_MIB`].
    pub memory: Option<u32>,
    /// MiB that a domU may have (`maxmem`), if more than it has.
    pub max_memory: Option<u32>,
    /// MiB to which `xl mem-set` reduces a domU before it runs.
    pub reduced_to: Option<u32>,
    /// Whether dom0 changes the maximum of a domU (`xl mem-set`, `xl mem-max`) while it runs.
    pub is_shaken: bool,
    /// Whether Xen records the hypercalls of a PV domU, by `xentrace`.
    pub is_recorded: bool,
    /// MiB of the machine below 4 GiB, if not as much as fits.
    pub low_memory: Option<u32>,
    /// MiB of a dom0, if Xen is to keep the rest of the machine's memory.
    pub dom0_memory: Option<u32>,
    /// Options that are added to Xen's command line for a dom0.
    pub xen_args: String,
    /// The whole command line of Xen for a dom0, if it is not the bed's. The machine then has no IOMMU
    /// and no `edu` device.
    pub xen_line: Option<&'static str>,
    /// vCPUs, if not one.
    pub vcpus: Option<u32>,
    /// Processors of a dom0's machine, if not one for each vCPU and at least two.
    pub processors: Option<u32>,
    /// What the clock of a dom0's machine counts.
    pub clock: MachineClock,
    /// Devices of the machine that drivers are tried with.
    pub devices: Devices,
    /// The configuration of a domU, if it is not that of its mode.
    pub config: Option<&'static str>,
    /// PCI devices that dom0 passes to a domU. The machine then has them.
    pub passed: Vec<PassedDevice>,
    /// What the machine lacks for that, in a test of the error.
    pub pass_fault: Option<PassFault>,
    /// Whether the machine of a dom0 waits for a debugger.
    pub gdb: bool,
}

/// A PCI device of the machine that dom0 can pass to a domU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedDevice {
    /// QEMU's device for teaching, whose DMA engine drives 28 address bits.
    Edu,
    /// The NVMe disk.
    Nvme,
    /// The network card.
    Nic,
}

/// What a machine lacks for passing a device to a domU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassFault {
    /// An IOMMU.
    NoIommu,
    /// The backend in dom0. It is taken from its driver once the domain was created.
    NoBackend,
}

impl PassedDevice {
    /// Returns the vendor and device numbers, as Linux prints them in sysfs.
    pub const fn ids(self) -> &'static str {
        match self {
            Self::Edu => "0x1234 0x11e8",
            Self::Nvme => "0x1b36 0x0010",
            Self::Nic => "0x8086 0x100e",
        }
    }
}

/// When a guest has done what it is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It has ended, or its time is up.
    End,
    /// It has printed its `probe:` line. The guest is not ended.
    Probe,
    /// It has ended. The Linux dom0 recorded what Xen says of its memory before it ran, and again
    /// after its end, while `xl` preserved it.
    Watch,
    /// It has printed its verdict, or what it is expected to print. It is then destroyed, and Xen's free
    /// memory is recorded.
    Destroy,
    /// It has printed what it is expected to print. Xen's free memory is recorded, and the guest stays
    /// while those after it run.
    Stay,
    /// It has ended, after it was saved twice: once to be kept, and once to be restored.
    Save,
}

/// The self-test that waits until the domain is saved.
const SAVED: &str = "c75-save-and-restore";

impl Goal {
    /// Returns the goal of a guest with this command line.
    fn of(args: &KernelArgs) -> Self {
        let named = |word: &str| {
            word.strip_prefix("selftest=").is_some_and(|it| it.split(',').any(|name| name == SAVED))
        };
        let mut words = args.as_str().split_whitespace();
        if words.any(named) { Self::Save } else { Self::End }
    }
}

impl Guest {
    /// Returns a guest as it is booted without further wishes.
    pub fn new(
        mode: GuestMode,
        name: impl Into<String>,
        args: KernelArgs,
        limit: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            mode,
            kernel: None,
            expect: Expect::default(),
            streams: false,
            goal: Goal::of(&args),
            args,
            limit,
            memory: None,
            max_memory: None,
            reduced_to: None,
            is_shaken: false,
            is_recorded: false,
            low_memory: None,
            dom0_memory: None,
            xen_args: String::new(),
            xen_line: None,
            vcpus: None,
            processors: None,
            clock: MachineClock::Time,
            devices: Devices::default(),
            config: None,
            passed: Vec::new(),
            pass_fault: None,
            gdb: false,
        }
    }

    /// Returns the guest with the highest order that Xen exchanges: for domUs, for domUs with I/O
    /// resources, for the control domain and for the hardware domain.
    pub fn with_max_order(self, order: u32) -> Self {
        Self { xen_args: format!("memop-max-order={order},{order},{order},{order}"), ..self }
    }

    /// Returns the MiB of a dom0's machine.
    pub fn machine_mib(&self) -> u32 {
        self.memory.unwrap_or(DEFAULT_MIB)
    }

    /// Returns what a dom0 needs while other parts of a suite run.
    pub fn need(&self) -> Need {
        // Two debuggers cannot share a port.
        match self.gdb {
            true => Need::alone(),
            false => Need::machine(self.vcpus.unwrap_or(1), self.machine_mib()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_tells_the_goal() {
        let goal = |text| Goal::of(&KernelArgs::new(text).unwrap());
        assert_eq!(goal("trace=full selftest=a,c75-save-and-restore"), Goal::Save);
        assert_eq!(goal("selftest=c7*,accounts-balanced"), Goal::End);
        assert_eq!(goal(""), Goal::End);
    }
}
