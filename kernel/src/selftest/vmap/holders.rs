//! Does `holder` name what references a frame?

use alloc::vec::Vec;

use xen_contig::addr::{Gfn, Pfn};
use xen_contig::paging::{GuestMemory, Holder};
use xen_contig::vmap::UnmapMode;

use super::{Check, OwnedRun, Test, TestContext, error, fail, map, skip};
use crate::guest::guest;
use crate::layout::{READ_WRITE, slot, window};
use crate::machine::Machine;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-holders-named", holders));
}

fn is(machine: &Machine, pfn: Pfn, expected: Holder) -> Check {
    let holder = machine.linear.holder(pfn, machine.p2m.mfn(pfn));
    if holder != expected {
        fail!("expected that pfn {pfn} {expected}, but it {holder}");
    }
    Ok(())
}

fn holders(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Some(top) = machine.top_table() else {
        skip!("translated guest: Xen refuses the exchange before it reads the in-list")
    };
    is(machine, top, Holder::PageTable { level: 4 })?;
    if let Some(level1) = machine.linear.first_table() {
        is(machine, level1, Holder::PageTable { level: 1 })?;
    }
    let run = OwnedRun::take(machine, 2)?;
    let (mapped, free) = (run.first(), run.first().add(1));
    let Some(mfn) = machine.p2m.mfn(mapped) else { fail!("pfn {mapped} has no machine frame") };
    is(machine, free, Holder::Unknown)?;
    // Uses that the kernel has recorded.
    let noted = [
        Holder::DescriptorTable { vcpu: 0 },
        Holder::Granted { reference: 9 },
        Holder::Shared { name: "a ring" },
    ];
    for holder in noted {
        machine.linear.note_use(free, holder);
        let named = is(machine, free, holder);
        machine.linear.forget_use(free);
        named?;
    }
    is(machine, free, Holder::Unknown)?;
    // A mapping outside all areas.
    if let Err(errno) = guest().set_window(slot::ALIAS, Some((Gfn::new(mfn.number()), READ_WRITE)))
    {
        error!("mapping the alias of mfn {mfn}: {errno}");
    }
    let by_window = is(machine, mapped, Holder::Mapping { address: window(slot::ALIAS) });
    if let Err(errno) = guest().set_window(slot::ALIAS, None) {
        error!("removing the alias: {errno}");
    }
    by_window?;
    // An area in use, and its leftover.
    let area = map(machine, &run, "holder")?;
    let address = area.address();
    let in_use = is(machine, mapped, Holder::Area { address, name: "holder" });
    area.unmap(UnmapMode::Lazy)?;
    let left = is(machine, free, Holder::Leftover { address: address + 4096_u64, name: "holder" });
    if let Err(error) = machine.areas.purge_all(xen_contig::vmap::Flush::Inhibit) {
        fail!("purging: {error}");
    }
    let gone = is(machine, free, Holder::Unknown);
    in_use.and(left).and(gone)
}
