//! The stacks and the data of a vCPU other than the first.

use core::mem;

use x86_64::VirtAddr;
use xen_contig::addr::PAGE_SIZE;
use xen_contig::vmap::Protection;

use crate::console::say;
use crate::machine::Machine;
use crate::vcpu::{FAULT_STACK, Local, Mailbox, Stack, VcpuId};

/// The size in bytes of the stack that a vCPU runs on.
const STACK: u64 = 64 << 10;

/// Allocates the stacks and the data of a vCPU, for good. Returns `None` without memory for them.
///
/// Each one is a virtual area of its own, so an overflow of a stack reaches an unmapped page.
pub fn local(machine: &Machine, id: VcpuId) -> Option<&'static Local> {
    let stack = stack(machine, STACK, "vCPU stack")?;
    let fault_stack = self::stack(machine, FAULT_STACK, "vCPU fault stack")?;
    let local = pages(machine, mem::size_of::<Local>() as u64, "vCPU data")?.as_mut_ptr::<Local>();
    // SAFETY: the pages are mapped and large enough for a `Local`. Nothing else uses them
    // ([M1](xen_contig::rules#M1)), and they are never freed.
    unsafe {
        local.write(Local::new(id, stack, fault_stack, Mailbox::empty()));
        Some(&*local)
    }
}

fn stack(machine: &Machine, bytes: u64, name: &'static str) -> Option<Stack> {
    let bottom = pages(machine, bytes, name)?.as_u64();
    Some(Stack::Area { bottom, top: bottom + bytes })
}

/// Maps consecutive pages for `bytes` bytes, with an unmapped page on each side, for good.
fn pages(machine: &Machine, bytes: u64, name: &'static str) -> Option<VirtAddr> {
    let run = machine.frames.lock().take(bytes.div_ceil(PAGE_SIZE as u64), 1)?;
    // SAFETY: `run` owns the frames ([M1](xen_contig::rules#M1)). They are never freed while the
    // area exists.
    match unsafe { machine.areas.vmap(run.iter(), Protection::ReadWrite, name) } {
        Ok(area) => Some(area.address()),
        Err(error) => {
            say!("# vcpus: {name}: {error}");
            machine.give(run);
            None
        }
    }
}
