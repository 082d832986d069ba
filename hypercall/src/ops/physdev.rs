//! `HYPERVISOR_physdev_op` (`public/physdev.h`).

/// A sub-operation of `physdev_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PhysdevOp {
    /// Sets the I/O privilege level of the calling vCPU, 0..=3.
    ///
    /// A PV kernel runs at level 1. From that level on, Xen carries out its port I/O for the ports
    /// that the domain was given.
    SetIopl(u32),
    /// Returns how Xen delivers a physical interrupt of the domain, as `XENIRQSTAT_*`.
    IrqStatusQuery {
        /// The physical interrupt, by the number that it has in this domain.
        pirq: u32,
    },
    /// Ends the handling of a physical interrupt, so that the next one is delivered.
    Eoi {
        /// The physical interrupt, by the number that it has in this domain.
        pirq: u32,
    },
}

impl PhysdevOp {
    /// The number `PHYSDEVOP_*` and the name, as in the header.
    pub(crate) const fn command(self) -> (u32, &'static str) {
        match self {
            Self::SetIopl(_) => (6, "set_iopl"),
            Self::IrqStatusQuery { .. } => (5, "irq_status_query"),
            Self::Eoi { .. } => (12, "eoi"),
        }
    }
}
