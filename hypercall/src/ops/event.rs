//! `HYPERVISOR_event_channel_op` (`public/event_channel.h`).

use crate::DomId;

/// An event-channel port of the calling domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

/// A sub-operation of `event_channel_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventChannelOp {
    /// Notifies the other end.
    Send(Port),
    /// Binds a virtual interrupt to a vCPU. Answers the port.
    BindVirq {
        /// `VIRQ_*`.
        virq: u32,
        /// Where it is delivered.
        vcpu: u32,
    },
    /// Makes a port by which vCPUs notify this one. Answers the port.
    BindIpi {
        /// Where it is delivered.
        vcpu: u32,
    },
    /// Makes a port that another domain may connect to. Answers the port.
    AllocUnbound {
        /// Which domain.
        remote: DomId,
    },
    /// Closes a port.
    Close(Port),
    /// Lets a port deliver again.
    Unmask(Port),
}
