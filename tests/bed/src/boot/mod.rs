//! A machine: QEMU with Xen in it, its serial lines in files, its monitor at hand, and a time
//! limit that holds even if the bed itself is gone.

mod devices;
mod dom0;
mod machine;
mod monitor;
mod xen_options;

pub use devices::{Devices, NvmeDevice};
pub use dom0::{DEFAULT_MIB, Dom0Boot};
pub use machine::{
    CONTROL, MachineClock, MachineSpec, QemuMachine, SERIAL, SILENT_HALT, Threads, pause,
};
use monitor::Monitor;
use xen_options::for_image;
pub use xen_options::{LINUX_MIB, for_linux, for_peer};
