//! `HYPERVISOR_event_channel_op` (`public/event_channel.h`).

use crate::DomId;

/// An event-channel port of the calling domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

/// A sub-operation of `event_channel_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventChannelOp {
    /// Notifies the other end.
    Send(Port),
    /// Binds a virtual interrupt to a vCPU. Returns the port.
    BindVirq {
        /// The interrupt, `VIRQ_*` of `public/xen.h`.
        virq: u32,
        /// The vCPU that receives it.
        vcpu: u32,
    },
    /// Binds a physical interrupt, which the toolstack gave to the domain. Returns the port.
    BindPirq {
        /// The physical interrupt, by the number that it has in this domain.
        pirq: u32,
        /// Whether other domains may bind the same interrupt, as devices on one line need.
        shared: bool,
    },
    /// Makes a port through which vCPUs of the domain notify one of them. Returns the port.
    BindIpi {
        /// The vCPU that receives the notifications.
        vcpu: u32,
    },
    /// Makes a port to which another domain may connect. Returns the port.
    AllocUnbound {
        /// The other domain.
        remote: DomId,
    },
    /// Closes a port.
    Close(Port),
    /// Unmasks a port. An event that is pending there is delivered.
    Unmask(Port),
}
