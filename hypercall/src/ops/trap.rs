//! `HYPERVISOR_set_trap_table` (`struct trap_info` in `public/arch-x86/xen.h`).

use x86_64::VirtAddr;

/// The handler of one exception of a PV guest, in Xen's layout.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct TrapInfo(xen_sys::trap_info);

impl TrapInfo {
    /// The end of a table: Xen stops at a null address.
    pub const END: Self = Self(xen_sys::trap_info { vector: 0, flags: 0, cs: 0, address: 0 });

    /// Delivers `vector` to `handler` with events masked (`TI_SET_IF`). Only ring 0 may raise it by
    /// an instruction.
    pub const fn new(vector: u8, handler: VirtAddr) -> Self {
        Self(xen_sys::trap_info {
            vector,
            flags: 1 << 2,
            cs: xen_sys::FLAT_KERNEL_CS as u16,
            address: handler.as_u64(),
        })
    }

    /// Returns the vector of the exception.
    pub const fn vector(&self) -> u8 {
        self.0.vector
    }

    /// Returns the address of the handler; 0 ends the table.
    pub const fn address(&self) -> u64 {
        self.0.address
    }
}

impl From<TrapInfo> for xen_sys::trap_info {
    fn from(trap: TrapInfo) -> Self {
        trap.0
    }
}
