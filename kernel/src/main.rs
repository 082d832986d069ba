//! The guest kernel: everything that the library needs around it to boot on a bare Xen, as PV or PVH,
//! as dom0 or domU, and the self-tests that it runs there.
//!
//! | question | place |
//! |---|---|
//! | what happens first? | [`boot`] |
//! | what is mapped where? | [`layout`], [`paging`] |
//! | which virtual areas are there, who holds a frame? | [`areas`] |
//! | where does output go? | [`console`] |
//! | what does an exception do? | [`traps`], [`panic`] |
//! | which CPUs are there, and how do they get work? | [`vcpu`] |
//! | how does one wake another? | [`events`] |
//! | what may the command line say? | [`command_line`] |
//! | how do hypercalls get traced? | [`hypervisor`] |
//! | which devices are there? | [`pci`] |
//! | how does a device move data? | [`edu`], [`virtio`] |
//! | how is the guest saved and restored? | [`suspend`] |
//! | what is tested at boot? | [`selftest`] |
//! | what does the verdict mean? | [`verdict`] |

#![no_std]
#![no_main]

extern crate alloc;

mod areas;
mod boot;
mod command_line;
mod console;
mod edu;
mod events;
mod exit;
mod extent;
mod heap;
mod hypervisor;
mod kind;
mod layout;
mod machine;
mod paging;
mod panic;
mod pci;
mod probe;
mod selftest;
mod suspend;
mod traps;
mod vcpu;
mod verdict;
mod virtio;

pub(crate) use console::say;
pub use exit::{Exit, exit};
pub use machine::Machine;

pvh_boot::entry!(main);

/// What both entries call, on the boot stack of the first vCPU, with interrupts and events off.
fn main(boot: pvh_boot::BootInfo) -> ! {
    let (machine, command_line) = boot::start(boot);
    let (options, complaints) = command_line::parse(&command_line);
    hypervisor::show_trace(options.trace);
    if let Some(mode) = options.vmap {
        machine.areas.set_mode(mode);
    }
    machine.report();
    vcpu::start(&machine);

    let exit = options.exit.unwrap_or(Exit::Poweroff);
    for complaint in &complaints {
        say!("# command line: {complaint}");
    }
    let verdict = if !complaints.is_empty() {
        say!("# nothing is run on a command line that is not understood");
        verdict::none_run(verdict::Verdict::Error)
    } else if let Some(request) = options.probe {
        probe::run(&machine, request, options.seed)
    } else {
        selftest::run(&machine, &options)
    };
    hypervisor::show_summary();
    say!("Test result: {verdict}");
    exit::exit(exit)
}
