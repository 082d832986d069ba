//! The printing of the hypercall trace.

use hypercall::trace::{Level, Summary, TraceEntry};

use crate::console::say;
use crate::hypervisor::Hypervisor;
use crate::vcpu::{self, xen};

/// Sets how much of the trace is printed, on all vCPUs that are up.
pub fn show(level: Level) {
    vcpu::online().for_each(|vcpu| vcpu.xen.show(level, print));
}

/// Makes the handle of a new vCPU print as much as the handle of the running vCPU.
pub fn copy_level(new: &Hypervisor) {
    new.show(xen().level(), print);
}

/// Prints an entry, with the vCPU that made the call if there are several.
fn print(entry: &TraceEntry) {
    match vcpu::count() {
        0 | 1 => say!("# trace {entry}"),
        _ => say!("# trace {} {entry}", vcpu::current()),
    }
}

/// Prints the table of all vCPUs' calls if the trace is on.
pub fn print_summary() {
    if xen().level() != Level::Off {
        let mut all = Summary::new();
        vcpu::online().for_each(|vcpu| all.add(&vcpu.xen.summary()));
        for line in alloc::format!("{all}").lines() {
            say!("# trace {line}");
        }
    }
}

/// Prints the last calls of this vCPU after a panic.
pub fn print_recent() {
    match vcpu::count() {
        0 | 1 => say!("# trace: the last hypercalls, oldest first"),
        _ => say!("# trace: the last hypercalls of {}, oldest first", vcpu::current()),
    }
    if !xen().recent(print) {
        say!(
            "# trace: the last hypercalls cannot be printed, because the panic interrupted a write"
        );
    }
}
