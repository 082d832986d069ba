//! The guest kernel around the component: boots as PV or PVH, as dom0 or domU, tests the exchange
//! on the Xen it runs on, and says what it found.

#![no_std]
#![no_main]

extern crate alloc;

mod kernel;
mod selftest;

use kernel::{Exit, command_line, hypervisor, probe, vcpu, verdict};

pvh_boot::entry!(main);

/// What both entries call, on the boot stack of the first vCPU, with interrupts and events off.
fn main(boot: pvh_boot::BootInfo) -> ! {
    let (machine, command_line) = kernel::boot::start(boot);
    let (options, complaints) = command_line::parse(&command_line);
    hypervisor::show_trace(options.trace);
    if let Some(mode) = options.vmap {
        machine.areas.set_mode(mode);
    }
    machine.report();
    vcpu::start(&machine);

    let exit = options.exit.unwrap_or(Exit::Poweroff);
    for complaint in &complaints {
        kernel::say!("# command line: {complaint}");
    }
    let verdict = if !complaints.is_empty() {
        kernel::say!("# nothing is run on a command line that is not understood");
        verdict::none_run(verdict::Verdict::Error)
    } else if let Some(request) = options.probe {
        probe::run(&machine, request, options.seed)
    } else {
        selftest::run(&machine, &options)
    };
    hypervisor::show_summary();
    kernel::say!("Test result: {verdict}");
    kernel::exit(exit)
}
