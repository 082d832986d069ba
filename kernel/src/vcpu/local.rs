//! What belongs to one vCPU alone, found by its GS base.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hypercall::ops::SegmentBase;
use hypercall::{VirtAddr, Xen};
use spin::Once;
use x86_64::registers::model_specific::GsBase;

use super::memory::Stack;
use super::work::Mailbox;
use super::{MAX, VcpuId};
use crate::events;
use crate::hypervisor::{self, Hypervisor};
use crate::kind::Kind;

/// The data of one vCPU. Other vCPUs reach it, too: to put work into its mailbox, to add up.
#[repr(C)]
pub struct Local {
    /// Where this structure lies: what `gs:[0]` reads.
    this: AtomicU64,
    /// Which vCPU.
    pub id: VcpuId,
    /// Where its stack lies.
    pub stack: Stack,
    /// Its way to Xen, with a trace of its own.
    pub xen: Hypervisor,
    /// Its work.
    pub mailbox: Mailbox,
    /// Its event port and counters.
    pub events: events::Local,
}

impl Local {
    /// The data of a vCPU that is not up yet.
    pub const fn new(id: VcpuId, stack: Stack, mailbox: Mailbox) -> Self {
        Self {
            this: AtomicU64::new(0),
            id,
            stack,
            xen: hypervisor::new(),
            mailbox,
            events: events::Local::new(),
        }
    }

    /// The address for GS, which reads itself there from now on.
    pub fn gs_base(&'static self) -> VirtAddr {
        let address = VirtAddr::from_ptr(self);
        self.this.store(address.as_u64(), Ordering::Relaxed);
        address
    }

    /// Lists the vCPU as one that is up.
    pub fn list(&'static self) {
        ONLINE[self.id.index()].call_once(|| self);
    }
}

static BOOT: Local = Local::new(VcpuId::BOOT, Stack::BOOT, Mailbox::empty());
static ONLINE: [Once<&'static Local>; MAX as usize] = [const { Once::new() }; MAX as usize];

/// Makes the vCPU that boots known to itself. Before this nothing may ask for [`local`] and so not
/// for Xen either.
pub fn adopt_boot(kind: Kind) {
    let base = BOOT.gs_base();
    match kind {
        // SAFETY: GS is not in use yet.
        Kind::Pv => match unsafe { BOOT.xen.set_segment_base(SegmentBase::GsKernel(base)) } {
            Ok(_) => {}
            // Without a GS base there is no panic either: stop where a debugger finds it.
            Err(_) => loop {
                core::hint::spin_loop();
            },
        },
        Kind::Pvh => GsBase::write(base),
    }
    BOOT.mailbox.close();
    BOOT.list();
}

/// The data of the vCPU that runs this.
pub fn local() -> &'static Local {
    let this: *const Local;
    // SAFETY: the GS base of each vCPU is set to its `Local` before it runs anything else, and
    // stays so; `this` lies at its start. What runs here never moves to another vCPU.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags));
        &*this
    }
}

/// The vCPUs that are up.
pub fn online() -> impl Iterator<Item = &'static Local> {
    ONLINE.iter().filter_map(|slot| slot.get().copied())
}

/// The data of a vCPU that is up.
pub fn of(id: VcpuId) -> Option<&'static Local> {
    ONLINE[id.index()].get().copied()
}
