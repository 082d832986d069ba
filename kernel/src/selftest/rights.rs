//! Are there no pages that are both writable and executable? Are page tables read-only, and are
//! page 0 and the pages below stacks unmapped?

use alloc::vec::Vec;

use xen_contig::addr::PAGE_SIZE;

use super::{Check, Test, TestContext, fail};
use crate::layout::{AREAS_BASE, WINDOW_BASE};
use crate::machine::Machine;
use crate::paging::walk::{self, PageMapping, Visit};
use crate::vcpu;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("write-xor-execute", write_xor_execute));
    tests.push(Test::new("page-tables-read-only", page_tables_read_only));
    tests.push(Test::new("null-and-guard-unmapped", null_and_guard));
}

fn write_xor_execute(context: &TestContext<'_>) -> Check {
    let (mut both, mut executable) = (None, 0);
    context.machine.mappings(|mapping| {
        executable += u64::from(mapping.executable);
        if mapping.writable && mapping.executable {
            both = both.or(Some(mapping));
        }
    });
    match both {
        Some(mapping) => fail!("writable and executable: {mapping:x?}"),
        // This function is executable, so a walk that finds no executable page did not work.
        None if executable == 0 => fail!("the walk found no executable page at all"),
        None => Ok(()),
    }
}

/// Checks that no writable mapping names a page table, except those that a PVH guest writes itself.
fn page_tables_read_only(context: &TestContext<'_>) -> Check {
    let Machine { m2p, p2m, .. } = context.machine;
    // Window and areas lie in adjacent top-level slots. A PVH guest writes their first-level tables,
    // a PV guest no table at all.
    let written = WINDOW_BASE..AREAS_BASE + (1 << 39);
    let mut tables = Vec::new();
    walk::visit(*m2p, p2m.frames(), |visit| match visit {
        Visit::Table { address, level: 1, .. } if m2p.is_none() && written.contains(&address) => {}
        Visit::Table { frame, .. } => tables.push(frame),
        Visit::Page(_) => {}
    });
    tables.sort_unstable();
    let mut wrong = None;
    context.machine.mappings(|mapping| {
        let frames = mapping.frame..mapping.frame + mapping.size / PAGE_SIZE as u64;
        let next = tables.partition_point(|table| *table < frames.start);
        if mapping.writable && tables.get(next).is_some_and(|table| frames.contains(table)) {
            wrong = wrong.or(Some(mapping));
        }
    });
    match wrong {
        Some(mapping) => fail!("a writable mapping names a page table: {mapping:x?}"),
        None if tables.len() < 4 => fail!("the walk found only {} page tables", tables.len()),
        None => Ok(()),
    }
}

fn null_and_guard(context: &TestContext<'_>) -> Check {
    // These are the pages below the stacks.
    let guards: Vec<u64> = vcpu::online()
        .flat_map(|vcpu| [vcpu.stack, vcpu.fault_stack])
        .map(|stack| stack.guard())
        .collect();
    let holds = |mapping: &PageMapping, address: u64| {
        (mapping.address..=mapping.address + (mapping.size - 1)).contains(&address)
    };
    let (mut wrong, mut stacks) = (None, 0);
    context.machine.mappings(|mapping| {
        for guard in guards.iter().copied() {
            if holds(&mapping, 0) || holds(&mapping, guard) {
                wrong = wrong.or(Some(mapping));
            }
            stacks += u32::from(holds(&mapping, guard + PAGE_SIZE as u64));
        }
    });
    match wrong {
        Some(mapping) => fail!("mapped, but must not be: {mapping:x?}"),
        None if stacks as usize != guards.len() => {
            fail!("the walk found {stacks} of {} stacks above their guard pages", guards.len())
        }
        None => Ok(()),
    }
}
