//! The data of one vCPU, which it finds by its GS base.

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
    /// Which vCPU.
    pub id: VcpuId,
    /// The stack that it runs on.
    pub stack: Stack,
    /// The stack that a PVH vCPU takes page and double faults on.
    pub fault_stack: Stack,
    /// Its handle of Xen, with a trace of its own.
    pub xen: Hypervisor,
    /// Its work.
    pub mailbox: Mailbox,
    /// Its event port and counters.
    pub events: EventState,
}

impl Local {
    /// The data of a vCPU that is not up yet.
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

    /// Adds the vCPU to those that are [`online`].
    pub fn list(&'static self) {
        ONLINE[self.id.index()].call_once(|| self);
    }
}

/// The first vCPU always has work: it runs `main`.
static BOOT: Local = Local::new(VcpuId::BOOT, Stack::Boot, Stack::BootFault, Mailbox::closed());
static ONLINE: [Once<&'static Local>; MAX as usize] = [const { Once::new() }; MAX as usize];

/// The data of the vCPU that boots.
pub fn boot() -> &'static Local {
    &BOOT
}

/// The data of the vCPU that runs this.
pub fn local() -> &'static Local {
    let this: *const Local;
    // SAFETY: each vCPU sets its GS base to the address of its `Local` before it runs anything that
    // calls this function, and never changes it. `this` is the first member and holds the address.
    // Code never moves from one vCPU to another.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags));
        &*this
    }
}

/// Xen, with every call recorded in the trace of the vCPU that runs this.
pub fn xen() -> &'static Hypervisor {
    &local().xen
}

/// The vCPU that runs this.
pub fn current() -> VcpuId {
    local().id
}

/// The vCPUs that are up.
pub fn online() -> impl Iterator<Item = &'static Local> {
    ONLINE.iter().filter_map(|slot| slot.get().copied())
}

/// How many vCPUs are up.
pub fn count() -> usize {
    online().count()
}

/// The data of a vCPU that is up.
pub fn of(id: VcpuId) -> Option<&'static Local> {
    ONLINE[id.index()].get().copied()
}

/// How many notifications the vCPUs of this guest have sent each other so far.
///
/// Each piece of work costs one to start it, and one when the last vCPU has finished it. Nothing
/// else sends any.
pub fn notifications() -> u64 {
    online().map(|local| local.events.sent()).sum()
}
