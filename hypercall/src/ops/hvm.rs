//! `HYPERVISOR_hvm_op` (`public/hvm/hvm_op.h`).

use crate::Pfn;
use crate::abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
};

/// A sub-operation of `hvm_op` on the calling domain that any code may ask for.
///
/// [`Xen::set_hvm_param`](crate::Xen::set_hvm_param) sets a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HvmOp {
    /// Returns the value of a parameter.
    GetParam(HvmParamIndex),
    /// Flushes the TLB of every vCPU of the domain (`HVMOP_flush_tlbs`).
    FlushTlbs,
    /// Returns what backs a guest frame, `HVMMEM_*` (`HVMOP_get_mem_type`), such as
    /// [`HVMMEM_RAM_RW`](crate::abi::hvm::HVMMEM_RAM_RW).
    GetMemType(Pfn),
}

/// A parameter of a translated guest, `HVM_PARAM_*` (`public/hvm/params.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum HvmParamIndex {
    /// How Xen delivers events; see
    /// [`HVM_PARAM_CALLBACK_TYPE_VECTOR`](crate::abi::hvm::HVM_PARAM_CALLBACK_TYPE_VECTOR).
    CallbackIrq = HVM_PARAM_CALLBACK_IRQ,
    /// The `Pfn` of the xenstore ring.
    StorePfn = HVM_PARAM_STORE_PFN,
    /// The event channel of xenstore.
    StoreEvtchn = HVM_PARAM_STORE_EVTCHN,
    /// The `Pfn` of the console page.
    ConsolePfn = HVM_PARAM_CONSOLE_PFN,
    /// The event channel of the console.
    ConsoleEvtchn = HVM_PARAM_CONSOLE_EVTCHN,
}
