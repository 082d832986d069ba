//! `HYPERVISOR_vcpu_op` (`public/vcpu.h`).

use crate::abi::vcpu::{HvmContext, RegisterVcpuInfo, RunstateInfo};

/// A sub-operation of `vcpu_op`.
#[non_exhaustive]
pub enum VcpuOp<'a> {
    /// Sets the state in which a vCPU of a PV guest starts.
    Initialise(&'a xen_sys::vcpu_guest_context),
    /// Sets the state in which a vCPU of a translated guest starts.
    InitialiseHvm(&'a HvmContext),
    /// Starts the vCPU, or lets it continue after [`Down`](Self::Down).
    Up,
    /// Stops the vCPU.
    Down,
    /// Returns 1 if the vCPU is up, else 0.
    IsUp,
    /// Reports the state of the vCPU and the time that it spent in each state.
    GetRunstateInfo(&'a mut RunstateInfo),
    /// Moves the `vcpu_info` of the vCPU to a page of the guest.
    RegisterVcpuInfo(&'a mut RegisterVcpuInfo),
}

impl VcpuOp<'_> {
    /// The number `VCPUOP_*` and the name, as in the header.
    pub(crate) const fn command(&self) -> (u32, &'static str) {
        match self {
            Self::Initialise(_) | Self::InitialiseHvm(_) => (0, "initialise"),
            Self::Up => (1, "up"),
            Self::Down => (2, "down"),
            Self::IsUp => (3, "is_up"),
            Self::GetRunstateInfo(_) => (4, "get_runstate_info"),
            Self::RegisterVcpuInfo(_) => (10, "register_vcpu_info"),
        }
    }
}
