//! Exceptions and events of a PV guest: Xen takes them and delivers them where the guest says.

use hypercall::ops::TrapInfo;
use hypercall::{VirtAddr, Xen, XenErrno};
use xen_sys::vcpu_guest_context;

use super::{EXCEPTIONS, entry};
use crate::hypervisor::xen;

/// Hands the trap table of the first vCPU to Xen.
pub fn init() {
    let mut table = [TrapInfo::END; EXCEPTIONS + 1];
    for (vector, slot) in table.iter_mut().take(EXCEPTIONS).enumerate() {
        *slot = trap(vector);
    }
    // SAFETY: the table ends with END; the stubs take Xen's frame.
    if let Err(errno) = unsafe { xen().set_trap_table(&table) } {
        panic!("set_trap_table: {errno}");
    }
}

/// Tells Xen where the first vCPU takes events.
///
/// # Errors
/// Xen's.
pub fn set_callbacks() -> Result<u64, XenErrno> {
    let (event, failsafe) = (entry::pv_event(), entry::pv_failsafe());
    // SAFETY: both stubs take Xen's frame.
    unsafe { xen().set_callbacks(VirtAddr::new(event), VirtAddr::new(failsafe)) }
}

/// Gives the first state of another vCPU the same traps and callbacks.
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
