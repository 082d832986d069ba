//! Is no page both writable and executable, and are page 0 and the pages below stacks unmapped?

use alloc::vec::Vec;

use xen_contig::addr::PAGE_SIZE;

use super::{Check, Context, Test, fail};
use crate::paging::walk::{Mapping, mappings};
use crate::vcpu;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("write-xor-execute", write_xor_execute));
    tests.push(Test::new("null-and-guard-unmapped", null_and_guard));
}

fn write_xor_execute(context: &Context<'_>) -> Check {
    let (mut both, mut executable) = (None, 0);
    mappings(context.machine, |mapping| {
        executable += u64::from(mapping.executable);
        if mapping.writable && mapping.executable {
            both = both.or(Some(mapping));
        }
    });
    match both {
        Some(mapping) => fail!("writable and executable: {mapping:x?}"),
        // This function is executable, so a walk that finds nothing has not walked.
        None if executable == 0 => fail!("the walk found no executable page at all"),
        None => Ok(()),
    }
}

fn null_and_guard(context: &Context<'_>) -> Check {
    // The page below each stack.
    let guards: Vec<u64> =
        vcpu::online().map(|vcpu| vcpu.stack.bottom() - PAGE_SIZE as u64).collect();
    let holds = |mapping: &Mapping, address: u64| {
        (mapping.address..=mapping.address + (mapping.size - 1)).contains(&address)
    };
    let (mut wrong, mut stacks) = (None, 0);
    mappings(context.machine, |mapping| {
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
