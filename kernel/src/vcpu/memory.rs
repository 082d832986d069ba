//! Where the stack and the data of a vCPU lie.

use core::mem;

use x86_64::VirtAddr;
use xen_contig::addr::PAGE_SIZE;
use xen_contig::vmap::Protection;

use super::work::Mailbox;
use super::{Local, VcpuId};
use crate::machine::Machine;
use crate::say;
use crate::traps::pvh::Descriptors;

/// Bytes of the stack of a vCPU other than the first.
const STACK: u64 = 64 << 10;

/// Bytes of the stack that a PVH vCPU takes page and double faults on.
const FAULT_STACK: u64 = 16 << 10;

/// A stack, as addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    bounds: Option<(u64, u64)>,
}

impl Stack {
    /// The stack that the kernel boots on.
    pub const BOOT: Self = Self { bounds: None };

    /// Its lowest byte.
    pub fn bottom(&self) -> u64 {
        self.bounds.map_or_else(|| pvh_boot::boot_stack().bottom, |(bottom, _)| bottom)
    }

    /// One past its highest byte.
    pub fn top(&self) -> u64 {
        self.bounds.map_or_else(|| pvh_boot::boot_stack().top, |(_, top)| top)
    }

    /// Whether `address` lies on it.
    pub fn holds(&self, address: u64) -> bool {
        (self.bottom()..self.top()).contains(&address)
    }
}

/// What lies above the stacks of a vCPU.
pub struct Area {
    /// Its data.
    pub local: Local,
    /// Its descriptor tables, if it is of a PVH guest.
    pub descriptors: Descriptors,
}

/// Makes the area of a vCPU, for good; `None` where the guest has no memory for it.
///
/// A vCPU that overflows one of its stacks runs into a guard page: each is a virtual area of its
/// own, and so is the data.
pub fn area(machine: &Machine, id: VcpuId) -> Option<&'static Area> {
    let bottom = pages(machine, STACK, "vCPU stack")?.as_u64();
    let fault_stack = pages(machine, FAULT_STACK, "vCPU fault stack")?;
    let area = pages(machine, mem::size_of::<Area>() as u64, "vCPU data")?.as_mut_ptr::<Area>();
    let stack = Stack { bounds: Some((bottom, bottom + STACK)) };
    let descriptors = Descriptors::new(fault_stack + FAULT_STACK);
    // SAFETY: the pages are mapped, nobody else's ([M1](xen_contig::rules#M1)) and never given
    // back; there are enough for an `Area`.
    unsafe {
        area.write(Area { local: Local::new(id, stack, Mailbox::empty()), descriptors });
        Some(&*area)
    }
}

/// Pages in a row for so many bytes, with an unmapped one on either side, for good.
fn pages(machine: &Machine, bytes: u64, name: &'static str) -> Option<VirtAddr> {
    let run = machine.frames.lock().take(bytes.div_ceil(PAGE_SIZE as u64), 1)?;
    match machine.areas.vmap(run.iter(), Protection::ReadWrite, name) {
        Ok(area) => Some(area.address()),
        Err(error) => {
            say!("# vcpus: {name}: {error}");
            machine.give(run);
            None
        }
    }
}
