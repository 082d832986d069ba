//! Where the stack and the data of a vCPU lie.

use core::mem;

use x86_64::VirtAddr;
use xen_contig::addr::PAGE_SIZE;

use super::work::Mailbox;
use super::{Local, VcpuId};
use crate::kernel::layout;
use crate::kernel::machine::Machine;
use crate::kernel::traps::pvh::Descriptors;

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
pub fn area(machine: &Machine, id: VcpuId) -> Option<&'static Area> {
    let stacks = STACK + FAULT_STACK;
    let start = pages(machine, (stacks + mem::size_of::<Area>() as u64).div_ceil(PAGE))?.as_u64();
    let stack = Stack { bounds: Some((start + FAULT_STACK, start + stacks)) };
    let descriptors = Descriptors::new(VirtAddr::new(start + FAULT_STACK));
    let area = (start + stacks) as *mut Area;
    // SAFETY: the pages are mapped, nobody else's (M1) and never given back; behind the stacks,
    // which end at a page, there is room for an `Area`.
    unsafe {
        area.write(Area { local: Local::new(id, stack, Mailbox::empty()), descriptors });
        Some(&*area)
    }
}

const PAGE: u64 = PAGE_SIZE as u64;

/// Mapped pages in a row, for good. They come from the linear mapping, so nothing guards the page
/// below them.
fn pages(machine: &Machine, count: u64) -> Option<VirtAddr> {
    let run = machine.frames.lock().take(count, 1)?;
    Some(layout::linear(run.first()))
}
