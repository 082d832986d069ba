//! `public/vcpu.h`.

use super::assert_layout;

/// `struct vcpu_register_vcpu_info`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// The `Gfn` of the page that will hold the `vcpu_info`.
    pub mfn: u64,
    /// The byte offset in that page.
    pub offset: u32,
    /// Must be zero.
    pub reserved: u32,
}
assert_layout!(RegisterVcpuInfo, size 16, mfn @ 0, offset @ 8, reserved @ 12);

/// `RUNSTATE_running`: the vCPU runs.
pub const RUNSTATE_RUNNING: u32 = 0;
/// `RUNSTATE_runnable`: the vCPU waits for a physical CPU.
pub const RUNSTATE_RUNNABLE: u32 = 1;
/// `RUNSTATE_blocked`: the vCPU is idle and waits for an event.
pub const RUNSTATE_BLOCKED: u32 = 2;
/// `RUNSTATE_offline`: the vCPU is stopped.
pub const RUNSTATE_OFFLINE: u32 = 3;

/// `struct vcpu_runstate_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RunstateInfo {
    /// The present state, `RUNSTATE_*`.
    pub state: u32,
    /// The system time of the last change of state, in nanoseconds since boot.
    pub state_entry_time: u64,
    /// The nanoseconds spent in each state, by the number of the state.
    pub time: [u64; 4],
}
assert_layout!(RunstateInfo, size 48, state @ 0, state_entry_time @ 8, time @ 16);

/// `VCPU_HVM_MODE_64B`: the context of a vCPU that starts in 64-bit mode.
pub const VCPU_HVM_MODE_64B: u32 = 1;

/// `struct vcpu_hvm_context` (`public/hvm/hvm_vcpu.h`) with the 64-bit variant of its union: the
/// state in which a vCPU of a translated guest starts.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HvmContext {
    /// Must be [`VCPU_HVM_MODE_64B`].
    pub mode: u32,
    /// Must be zero.
    pub pad: u32,
    /// The registers, `cpu_regs.x86_64`.
    pub regs: HvmRegisters64,
}
assert_layout!(HvmContext, size 120, mode @ 0, regs @ 8);

/// `struct vcpu_hvm_x86_64` (`public/hvm/hvm_vcpu.h`). The vCPU starts with flat segments.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[expect(missing_docs, reason = "each is the register of its name")]
pub struct HvmRegisters64 {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}
assert_layout!(HvmRegisters64, size 112, rsp @ 32, rip @ 64, cr0 @ 80, efer @ 104);
