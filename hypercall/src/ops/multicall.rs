//! One entry of `multicall` (`struct multicall_entry` in `public/xen.h`).

use x86_64::VirtAddr;

use super::{MmuExtOp, MmuUpdate, Pte, UvmFlags};
use crate::{DomId, XenErrno};

/// One call of a batch, in Xen's own layout.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct MulticallEntry(xen_sys::multicall_entry);

/// What a result field holds before Xen has answered: a value that no hypercall returns, so that
/// an entry that was never run is not read as a success.
const UNANSWERED: u64 = i64::MIN as u64;

impl MulticallEntry {
    const fn of(op: u32, args: [u64; 4]) -> Self {
        let [a, b, c, d] = args;
        Self(xen_sys::multicall_entry {
            op: op as u64,
            result: UNANSWERED,
            args: [a, b, c, d, 0, 0],
        })
    }

    /// `update_va_mapping` as an entry.
    pub const fn update_va_mapping(address: VirtAddr, pte: Pte, flush: UvmFlags) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_update_va_mapping,
            [address.as_u64(), pte.raw(), flush.bits(), 0],
        )
    }

    /// `mmu_update` as an entry. The slice must live until the batch was issued.
    pub fn mmu_update(updates: &[MmuUpdate], domain: DomId) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_mmu_update,
            [updates.as_ptr() as u64, updates.len() as u64, 0, u64::from(domain.0)],
        )
    }

    /// `mmuext_op` as an entry. The slice must live until the batch was issued.
    pub fn mmuext_op(ops: &[MmuExtOp], domain: DomId) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_mmuext_op,
            [ops.as_ptr() as u64, ops.len() as u64, 0, u64::from(domain.0)],
        )
    }

    /// The hypercall number.
    pub const fn op(&self) -> u32 {
        self.0.op as u32
    }

    /// Whether the call flushes a TLB, as far as the entry itself says: of a list of operations it
    /// holds only the address.
    pub const fn flushes(&self) -> bool {
        match self.op() {
            xen_sys::__HYPERVISOR_update_va_mapping => {
                UvmFlags::from_bits_retain(self.0.args[2]).flushes()
            }
            xen_sys::__HYPERVISOR_mmuext_op => true,
            _ => false,
        }
    }

    /// The arguments as Xen takes them.
    pub const fn args(&self) -> [u64; 6] {
        self.0.args
    }

    /// What Xen answered.
    ///
    /// # Errors
    /// Xen's; `EOVERFLOW` where it did not answer at all.
    pub const fn result(&self) -> Result<u64, XenErrno> {
        XenErrno::check(self.0.result as i64)
    }

    /// Writes the answer, for a model that stands in for Xen.
    pub const fn answer(&mut self, result: i64) {
        self.0.result = result as u64;
    }
}
