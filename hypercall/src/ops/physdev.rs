//! `HYPERVISOR_physdev_op` (`public/physdev.h`).

/// A sub-operation of `physdev_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhysdevOp {
    /// Sets the I/O privilege level of the calling vCPU, 0..=3. A PV kernel counts as level 1: from
    /// there on Xen carries out its port I/O as far as the domain has been given the ports.
    SetIopl(u32),
}
