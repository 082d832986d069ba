//! The guest kernel and its boot self-tests.
//!
//! It boots on Xen without an operating system, as PV or PVH guest, as dom0 or domU. It contains
//! everything that the library needs around it for that.
//!
//! The modules form layers. Each uses only the ones above it in this table, apart from [`Guest`].
//! Through that trait the lower layers reach the implementations in [`pv`] and [`pvh`].
//!
//! | question | place |
//! |---|---|
//! | what is mapped where, with which rights? | [`layout`] |
//! | how are ticks counted, and how do hypercalls reach Xen? | [`tsc`], [`hypervisor`] |
//! | which vCPU is this, and what belongs to it alone? | [`vcpu`] |
//! | what differs between PV and PVH? | [`guest`] |
//! | what does Xen share with the domain, and what time is it? | [`shared_page`], [`time`] |
//! | how are events masked, sent and handled? | [`events`] |
//! | where does output go? | [`console`], [`trace`] |
//! | how does the kernel end, and what does a panic do? | [`exit`], [`panic`](mod@panic) |
//! | what does an exception do? | [`traps`] |
//! | what do page tables contain, and what maps a frame? | [`paging`], [`areas`] |
//! | where does memory for Rust's `alloc` come from? | [`heap`] |
//! | how is a whole run exchanged for one extent? | [`extent`] |
//! | what do drivers and self-tests work with? | [`machine`] |
//! | how do the other vCPUs start and get work? | [`smp`] |
//! | what happens first? | [`pv`], [`pvh`], [`boot`] |
//! | what does the toolstack say of the domain? | [`xenstore`] |
//! | which frames may another domain map? | [`grants`] |
//! | how are devices found, and how do they move data? | [`pci`], [`drivers`], [`edu`], [`virtio`] |
//! | how is the guest saved and restored? | [`suspend`] |
//! | what may the command line say? | [`command_line`] |
//! | what is tested at boot, and what does the verdict mean? | [`selftest`], [`verdict`], [`probe`] |
//! | what does an allocation cost? | [`bench`](mod@bench) |
//!
//! [`Guest`]: guest::Guest

#![no_std]
#![no_main]

extern crate alloc;

mod areas;
mod bench;
mod boot;
mod command_line;
mod console;
mod drivers;
mod edu;
mod events;
mod exit;
mod extent;
mod grants;
mod guest;
mod heap;
mod hypervisor;
mod layout;
mod machine;
mod paging;
mod panic;
mod pci;
mod probe;
mod pv;
mod pvh;
mod selftest;
mod shared_page;
mod smp;
mod suspend;
mod time;
mod trace;
mod traps;
mod tsc;
mod vcpu;
mod verdict;
mod virtio;
mod xenstore;

use alloc::boxed::Box;

use boot::BootResult;
use console::say;
use exit::Exit;
use machine::Machine;
use verdict::Verdict;

pvh_boot::entry!(main);

/// The first function of the kernel.
///
/// Both entries call it on the boot stack of the first vCPU, with interrupts and events masked. A
/// debugger finds it by its plain name.
// SAFETY: the image links no C library, so this is its only symbol of that name.
#[unsafe(no_mangle)]
#[inline(never)]
fn main(boot: pvh_boot::BootInfo) -> ! {
    let BootResult { mut machine, command_line, cut_after, reservation } = boot::start(boot);
    let (options, complaints) = command_line::parse(&command_line, cut_after);
    machine.exchange_options.fuse = options.fuse;
    if let Some(mode) = options.vmap {
        machine.areas.set_mode(mode);
    }
    // It is never freed, so the reserve can refer to the kernel that it belongs to.
    let machine: &'static Machine = Box::leak(Box::new(machine));
    heap::overflow_into(&machine.frames);
    trace::configure(machine, options.trace);
    machine.start_dma();
    machine.report();
    reservation.print();
    smp::start(machine);
    trace::end_boot();

    for complaint in &complaints {
        say!("# command line: {complaint}");
    }
    let verdict = if !complaints.is_empty() {
        say!("# no test runs, because the command line has errors");
        verdict::none_run(Verdict::Error)
    } else if let Some(request) = options.probe {
        probe::run(machine, request, options.seed, options.exit)
    } else {
        let measured = bench::run(machine, &options.bench, options.seed);
        selftest::run(machine, &options, measured)
    };
    let exit = options.exit.unwrap_or(Exit::Poweroff);
    // A domain that is held keeps its devices.
    if exit != Exit::Hold {
        pci::close(machine);
    }
    trace::finish();
    say!("Test result: {verdict}");
    exit::exit(exit)
}
