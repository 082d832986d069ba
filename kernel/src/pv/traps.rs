//! The exception and event entries of a PV guest, as Xen receives them.

use hypercall::ops::TrapInfo;
use hypercall::{VirtAddr, Xen, XenErrno};
use xen_sys::vcpu_guest_context;

use crate::traps::{EXCEPTIONS, entry};
use crate::vcpu::xen;

/// Registers the trap table of the first vCPU with Xen.
pub fn init() {
    let mut table = [TrapInfo::END; EXCEPTIONS + 1];
    for (vector, slot) in table.iter_mut().take(EXCEPTIONS).enumerate() {
        *slot = trap(vector);
    }
    // SAFETY: the table ends with END, and the entries expect the frame that Xen pushes.
    if let Err(errno) = unsafe { xen().set_trap_table(&table) } {
        panic!("set_trap_table: {errno}");
    }
}

/// Registers the event handler of the first vCPU with Xen.
///
/// # Errors
/// Xen refused the callbacks.
pub fn set_callbacks() -> Result<u64, XenErrno> {
    let (event, failsafe) = (entry::pv_event(), entry::pv_failsafe());
    // SAFETY: both entries expect the frame that Xen pushes.
    unsafe { xen().set_callbacks(VirtAddr::new(event), VirtAddr::new(failsafe)) }
}

/// Puts the same traps and callbacks into the first state of another vCPU.
pub fn fill(context: &mut vcpu_guest_context) {
    for (vector, slot) in context.trap_ctxt.iter_mut().take(EXCEPTIONS).enumerate() {
        *slot = trap(vector).into();
    }
    context.event_callback_eip = entry::pv_event();
    context.failsafe_callback_eip = entry::pv_failsafe();
}

fn trap(vector: usize) -> TrapInfo {
    TrapInfo::new(vector as u8, VirtAddr::new(entry::pv_stub(vector)))
}
