//! `HYPERVISOR_hvm_op` (`public/hvm/hvm_op.h`).

use crate::abi::hvm::{
    HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
};

/// A sub-operation of `hvm_op`, on the calling domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HvmOp {
    /// Answers the value of a parameter.
    GetParam(HvmParamIndex),
    /// Sets it.
    SetParam(HvmParamIndex, u64),
    /// Flushes the TLB of every vCPU (`HVMOP_flush_tlbs`).
    FlushTlbs,
}

/// `HVM_PARAM_*` (`public/hvm/params.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HvmParamIndex {
    /// How events come; see
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
