//! The data of one vCPU, which the vCPU finds by its GS base.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hypercall::VirtAddr;
use spin::Once;

use super::events::EventState;
use super::id::{MAX, VcpuId};
use super::mailbox::Mailbox;
use super::stack::Stack;
use crate::hypervisor::{self, Hypervisor};

/// The data of one vCPU. Other vCPUs use it to send work and to add up counters.
#[repr(C)]
pub struct Local {
    /// The address of this structure, which the vCPU reads at `gs:[0]`.
    this: AtomicU64,
    /// The number of the vCPU.
    pub id: VcpuId,
    /// The stack that it runs on.
    pub stack: Stack,
    /// The stack on which a PVH vCPU handles page faults and double faults.
    pub fault_stack: Stack,
    /// The handle of Xen, with a trace of its own.
    pub xen: Hypervisor,
    /// The mailbox in which the vCPU finds its work.
    pub mailbox: Mailbox,
    /// The event port and its counters.
    pub events: EventState,
}

impl Local {
    /// Returns the data of a vCPU that is not up yet.
    pub const fn new(id: VcpuId, stack: Stack, fault_stack: Stack, mailbox: Mailbox) -> Self {
        Self {
            this: AtomicU64::new(0),
            id,
            stack,
            fault_stack,
            xen: hypervisor::new(),
            mailbox,
            events: EventState::new(),
        }
    }

    /// Prepares the data for [`local`] and returns the address to put into the GS base.
    pub fn gs_base(&'static self) -> VirtAddr {
        let address = VirtAddr::from_ptr(self);
        self.this.store(address.as_u64(), Ordering::Relaxed);
        address
    }

    /// Adds the vCPU to those that [`online`] returns.
    pub fn list(&'static self) {
        ONLINE[self.id.index()].call_once(|| self);
    }
}

/// The data of the first vCPU. Its mailbox is closed, because it always runs `main`.
static BOOT: Local = Local::new(VcpuId::BOOT, Stack::Boot, Stack::BootFault, Mailbox::closed());
static ONLINE: [Once<&'static Local>; MAX as usize] = [const { Once::new() }; MAX as usize];

/// Returns the data of the vCPU that boots.
pub fn boot() -> &'static Local {
    &BOOT
}

/// Returns the data of the running vCPU.
pub fn local() -> &'static Local {
    let this: *const Local;
    // SAFETY: each vCPU sets its GS base to the address of its `Local` before it calls this
    // function, and never changes it. `this` is the first member and contains the address. Code
    // never moves from one vCPU to another.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags));
        &*this
    }
}

/// Returns the handle of Xen that records every call in the trace of the running vCPU.
pub fn xen() -> &'static Hypervisor {
    &local().xen
}

/// Returns the number of the running vCPU.
pub fn current() -> VcpuId {
    local().id
}

/// Returns the vCPUs that are up.
pub fn online() -> impl Iterator<Item = &'static Local> {
    ONLINE.iter().filter_map(|slot| slot.get().copied())
}

/// Returns how many vCPUs are up.
pub fn count() -> usize {
    online().count()
}

/// Returns the data of a vCPU that is up.
pub fn of(id: VcpuId) -> Option<&'static Local> {
    ONLINE[id.index()].get().copied()
}
