//! `public/hvm/hvm_op.h` and `public/hvm/params.h`: parameters of a translated guest.

use super::assert_layout;
use crate::DomId;

/// `HVMOP_set_param`.
pub const HVMOP_SET_PARAM: u32 = 0;
/// `HVMOP_get_param`.
pub const HVMOP_GET_PARAM: u32 = 1;
/// `HVMOP_flush_tlbs`. Its argument must be null.
pub const HVMOP_FLUSH_TLBS: u32 = 5;
/// `HVM_PARAM_CALLBACK_IRQ`.
pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN`.
pub const HVM_PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN`.
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CALLBACK_TYPE_VECTOR`, where the value of that parameter has it: events come as this
/// vector on every vCPU, past any interrupt controller.
pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2 << 56;
/// `HVM_PARAM_CONSOLE_PFN`.
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN`.
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;

/// `struct xen_hvm_param`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HvmParam {
    /// Whose parameter.
    pub domid: DomId,
    /// Keeps `index` where the header has it.
    pub pad: u16,
    /// `HVM_PARAM_*`.
    pub index: u32,
    /// In or out.
    pub value: u64,
}
assert_layout!(HvmParam, size 16, domid @ 0, index @ 4, value @ 8);
