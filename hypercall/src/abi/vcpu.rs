//! `public/vcpu.h`.

use super::assert_layout;

/// `VCPUOP_initialise`.
pub const VCPUOP_INITIALISE: u32 = 0;
/// `VCPUOP_up`.
pub const VCPUOP_UP: u32 = 1;
/// `VCPUOP_down`.
pub const VCPUOP_DOWN: u32 = 2;
/// `VCPUOP_is_up`.
pub const VCPUOP_IS_UP: u32 = 3;
/// `VCPUOP_register_vcpu_info`.
pub const VCPUOP_REGISTER_VCPU_INFO: u32 = 10;

/// `struct vcpu_register_vcpu_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// `Gfn` of the page that will hold the `vcpu_info`.
    pub mfn: u64,
    /// Byte offset in that page.
    pub offset: u32,
    /// Must be zero.
    pub reserved: u32,
}
assert_layout!(RegisterVcpuInfo, size 16, mfn @ 0, offset @ 8, reserved @ 12);
