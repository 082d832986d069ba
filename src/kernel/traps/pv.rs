//! Exceptions of a PV guest: Xen takes them and delivers them to its trap table.

use hypercall::ops::TrapInfo;
use hypercall::{VirtAddr, Xen};

use super::{EXCEPTIONS, entry};
use crate::kernel::hypervisor::xen;

/// Hands the trap table to Xen.
pub fn init() {
    let mut table = [TrapInfo::END; EXCEPTIONS + 1];
    for (vector, slot) in table.iter_mut().take(EXCEPTIONS).enumerate() {
        *slot = TrapInfo::new(vector as u8, VirtAddr::new(entry::pv_stub(vector)));
    }
    // SAFETY: the table ends with END; the stubs take Xen's frame.
    if let Err(errno) = unsafe { xen().set_trap_table(&table) } {
        panic!("set_trap_table: {errno}");
    }
}
