//! Which PCI devices does this domain have, and may it map their memory and no other?

use alloc::vec::Vec;

use hypercall::XenErrno;
use xen_contig::addr::PAGE_SIZE;

use super::{Check, Test, TestContext, error, fail, skip};
use crate::command_line::When;
use crate::guest::guest;
use crate::layout::slot;
use crate::machine::Machine;
use crate::pci::{self, BarNotPermitted, ConfigSpace, Function, FunctionError, MemoryBar};
use crate::say;
use crate::verdict::TestOutcome;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("pci-devices", devices).when(When::Asked));
    tests.push(Test::new("pci-other-memory-refused", other_memory).when(When::Asked));
}

/// Opens configuration space. A domain that should have devices and has none is configured wrongly.
fn open(machine: &Machine) -> Result<ConfigSpace, TestOutcome> {
    match ConfigSpace::open(machine) {
        Ok(space) => Ok(space),
        Err(why) => error!("{why}"),
    }
}

/// Prints each function, and maps the first page of each of its base address registers.
fn devices(context: &TestContext<'_>) -> Check {
    let space = open(context.machine)?;
    let functions = pci::functions(&space);
    if functions.is_empty() {
        fail!("configuration space is available, but it has no device");
    }
    for (address, (vendor, device)) in functions {
        say!("# pci-devices: {address} {vendor:04x}:{device:04x}");
        let function = match Function::take(space.clone(), address) {
            Ok(function) => function,
            Err(FunctionError::NoEndpoint(_)) => continue,
            Err(why) => fail!("{why}"),
        };
        let memories = match function.memories() {
            Ok(memories) => memories,
            Err(why) => fail!("{why}"),
        };
        for bar in memories {
            say!("# pci-devices: {address} BAR at {:#x} ({} KiB)", bar.start, bar.bytes >> 10);
            match map(bar) {
                Ok(()) => {}
                Err(why) => fail!("{address}: {why}"),
            }
        }
    }
    Ok(())
}

/// Maps the first page of memory, and unmaps it.
fn map(bar: MemoryBar) -> Result<(), BarNotPermitted> {
    bar.map_page(0, slot::PROBE)?;
    // Xen never refuses this. If it did, the test would end with an error.
    let _unmapped = guest().set_window(slot::PROBE, None);
    Ok(())
}

/// The registers of the local APIC, which Xen keeps for itself.
///
/// Those of an I/O APIC would not do: Xen lets a PV dom0 map them, but only to read (`mmio_ro_ranges` in
/// `dom0_setup_permissions` of Xen's `dom0_build.c`).
const LOCAL_APIC: MemoryBar = MemoryBar { start: 0xfee0_0000, bytes: PAGE_SIZE as u64 };

/// Checks that memory of a device that was not passed is refused, by an error that says so.
fn other_memory(context: &TestContext<'_>) -> Check {
    if context.machine.m2p.is_none() {
        skip!("a PVH guest maps its own addresses, and no memory of the machine");
    }
    match map(LOCAL_APIC) {
        Err(why) if why.errno == XenErrno::EPERM => {
            say!("# pci-other-memory-refused: expected: {why}");
            Ok(())
        }
        Err(why) => fail!("expected EPERM: {why}"),
        Ok(()) => fail!("Xen let the domain map {:#x}, which is Xen's own", LOCAL_APIC.start),
    }
}
