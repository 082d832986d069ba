//! `public/hvm/hvm_op.h` and `public/hvm/params.h`: parameters of a translated guest.

use super::assert_layout;
use crate::DomId;

/// `HVM_PARAM_CALLBACK_IRQ`.
pub const HVM_PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN`.
pub const HVM_PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN`.
pub const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CALLBACK_TYPE_VECTOR`, at its place in the value of `HVM_PARAM_CALLBACK_IRQ`: Xen
/// delivers events as the vector in the low bits, on every vCPU, without an interrupt controller.
pub const HVM_PARAM_CALLBACK_TYPE_VECTOR: u64 = 2 << 56;
/// `HVM_PARAM_CONSOLE_PFN`.
pub const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN`.
pub const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;

/// `HVMMEM_ram_rw`: memory backs the frame, and the guest may write to it.
pub const HVMMEM_RAM_RW: u64 = 0;
/// `HVMMEM_mmio_dm`: no memory backs the frame.
pub const HVMMEM_MMIO_DM: u64 = 2;

/// `struct xen_hvm_param`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HvmParam {
    /// The domain that has the parameter.
    pub domid: DomId,
    /// Padding.
    pub pad: u16,
    /// The parameter, `HVM_PARAM_*`.
    pub index: u32,
    /// The value, in or out.
    pub value: u64,
}
assert_layout!(HvmParam, size 16, domid @ 0, index @ 4, value @ 8);

/// `struct xen_hvm_get_mem_type`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HvmGetMemType {
    /// The domain that has the frame.
    pub domid: DomId,
    /// The type, `HVMMEM_*`; Xen writes it.
    pub mem_type: u16,
    /// Padding.
    pub pad: [u16; 2],
    /// The guest frame number.
    pub pfn: u64,
}
assert_layout!(HvmGetMemType, size 16, domid @ 0, mem_type @ 2, pfn @ 8);
