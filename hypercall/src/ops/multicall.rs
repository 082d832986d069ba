//! One entry of `multicall` (`struct multicall_entry` in `public/xen.h`).

use x86_64::VirtAddr;

use super::memory::XENMEM_EXCHANGE;
use super::{MmuExtOp, MmuUpdate, Pte, UvmFlags};
use crate::abi::memory::MemoryExchange;
use crate::{DomId, XenErrno};

/// One call of a batch, in Xen's layout.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct MulticallEntry(xen_sys::multicall_entry);

/// The result of an entry that Xen has not run. No hypercall returns this value, so such an entry is
/// not mistaken for a success.
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

    /// Makes an entry for `update_va_mapping`.
    pub const fn update_va_mapping(address: VirtAddr, pte: Pte, flush: UvmFlags) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_update_va_mapping,
            [address.as_u64(), pte.raw(), flush.bits(), 0],
        )
    }

    /// Makes an entry for `mmu_update`. The slice must live until the batch was issued.
    pub fn mmu_update(updates: &[MmuUpdate], domain: DomId) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_mmu_update,
            [updates.as_ptr() as u64, updates.len() as u64, 0, u64::from(domain.0)],
        )
    }

    /// Makes an entry for `mmu_update` whose progress Xen counts in `done`, which is 0. Slice and counter
    /// must live until the batch was issued.
    pub fn mmu_update_counted(updates: &[MmuUpdate], done: &mut u32, domain: DomId) -> Self {
        let done = core::ptr::from_mut(done) as u64;
        Self::of(
            xen_sys::__HYPERVISOR_mmu_update,
            [updates.as_ptr() as u64, updates.len() as u64, done, u64::from(domain.0)],
        )
    }

    /// Makes an entry for the exchange of `memory_op`. The argument must live until the batch was
    /// issued.
    pub fn exchange(argument: &mut MemoryExchange) -> Self {
        let argument = core::ptr::from_mut(argument) as u64;
        Self::of(xen_sys::__HYPERVISOR_memory_op, [XENMEM_EXCHANGE, argument, 0, 0])
    }

    /// Makes an entry for `mmuext_op`. The slice must live until the batch was issued.
    pub fn mmuext_op(ops: &[MmuExtOp], domain: DomId) -> Self {
        Self::of(
            xen_sys::__HYPERVISOR_mmuext_op,
            [ops.as_ptr() as u64, ops.len() as u64, 0, u64::from(domain.0)],
        )
    }

    /// Returns the hypercall number.
    pub const fn op(&self) -> u32 {
        self.0.op as u32
    }

    /// Returns true if the call flushes a TLB, as far as the entry shows. An `mmuext_op` counts as a
    /// flush, because its entry holds only the address of its list.
    pub const fn flushes(&self) -> bool {
        match self.op() {
            xen_sys::__HYPERVISOR_update_va_mapping => {
                UvmFlags::from_bits_retain(self.0.args[2]).flushes()
            }
            xen_sys::__HYPERVISOR_mmuext_op => true,
            _ => false,
        }
    }

    /// Returns the arguments as Xen takes them.
    pub const fn args(&self) -> [u64; 6] {
        self.0.args
    }

    /// Returns the result of this call.
    ///
    /// # Errors
    /// Xen's error, or `EOVERFLOW` if Xen has not run the entry.
    pub const fn result(&self) -> Result<u64, XenErrno> {
        XenErrno::check(self.0.result as i64)
    }

    /// Writes the result, for a model that stands in for Xen. Overwrites the call and its arguments, as
    /// a debug Xen does.
    pub const fn answer(&mut self, result: i64) {
        const OVERWRITTEN: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        self.0.op = OVERWRITTEN;
        self.0.args = [OVERWRITTEN; 6];
        self.0.result = result as u64;
    }

    /// Returns the length of the list of an `mmu_update` or `mmuext_op`; 0 for another call.
    pub(crate) const fn list_len(&self) -> u32 {
        match self.op() {
            xen_sys::__HYPERVISOR_mmu_update | xen_sys::__HYPERVISOR_mmuext_op => {
                self.0.args[1] as u32
            }
            _ => 0,
        }
    }

    /// Returns the address of the argument if the entry is an exchange.
    pub(crate) fn exchange_argument(&self) -> Option<*const u64> {
        let [command, argument, ..] = self.0.args;
        let is_exchange =
            self.op() == xen_sys::__HYPERVISOR_memory_op && command == XENMEM_EXCHANGE;
        is_exchange.then_some(argument as *const u64)
    }

    /// Returns the address of the list if the entry is an `mmuext_op`.
    pub(crate) fn mmuext_list(&self) -> Option<*const u64> {
        (self.op() == xen_sys::__HYPERVISOR_mmuext_op).then_some(self.0.args[0] as *const u64)
    }
}
