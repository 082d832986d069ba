//! The handle of the running vCPU.

use super::handle::Hypervisor;
use crate::vcpu;

/// Xen, with every call recorded in the trace of the vCPU that makes it.
pub fn xen() -> &'static Hypervisor {
    &vcpu::local().xen
}
