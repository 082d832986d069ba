//! The request of a toolstack to save the domain, and the guest's reaction.

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use hypercall::ops::{EventChannelOp, Port, SchedOp, Suspended};
use hypercall::{DomId, Xen, XenErrno};

use crate::guest::guest;
use crate::hypervisor::untraced;
use crate::machine::Machine;
use crate::time::Deadline;
use crate::vcpu::xen;
use crate::xenstore::{Store, StoreError};
use crate::{console, events, shared_page, vcpu};

/// The key from which libxl reads the port (`xs_suspend_evtchn_port`), in the domain's own path.
const KEY: &str = "device/suspend/event-channel";

/// The reason why a guest cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendError {
    /// The guest has several vCPUs.
    Vcpus(usize),
    /// The guest is dom0.
    InitialDomain,
    /// Xen refused this step.
    Xen(&'static str, XenErrno),
    /// The port was not written to xenstore.
    Store(StoreError),
}

impl fmt::Display for SuspendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpus(count) => {
                write!(
                    f,
                    "only a guest with one vCPU can be saved, and this one has {count}; set vcpus=1"
                )
            }
            Self::InitialDomain => f.write_str("dom0 cannot be saved; run this test in a domU"),
            Self::Xen(step, errno) => write!(f, "{step}: {errno}"),
            Self::Store(error) => write!(f, "{KEY}: {error}"),
        }
    }
}

/// Where the guest continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// In a new domain.
    Restored,
    /// In the same domain, after it was saved or after the suspension was cancelled.
    Kept,
}

/// The event channel by which the toolstack asks for the domain to be saved.
pub struct SaveRequests {
    port: Port,
}

impl SaveRequests {
    /// Creates the event channel, writes its port to xenstore, and publishes the place of the P2M.
    ///
    /// A restored domain needs a new event channel.
    ///
    /// # Errors
    /// The guest cannot be saved, or Xen or xenstored refused a step.
    pub fn open(machine: &Machine) -> Result<Self, SuspendError> {
        if machine.initial_domain {
            return Err(SuspendError::InitialDomain);
        }
        if vcpu::count() > 1 {
            return Err(SuspendError::Vcpus(vcpu::count()));
        }
        publish_p2m(machine);
        let made = xen().event_channel_op(EventChannelOp::AllocUnbound { remote: DomId(0) });
        let port = made.map_err(|errno| SuspendError::Xen("EVTCHNOP_alloc_unbound", errno))?;
        let port = Port(port as u32);
        let mut text = ArrayString::<10>::new();
        let _fits = write!(text, "{}", port.0);
        let written = Store::open().and_then(|mut store| store.write(KEY, &text));
        match written {
            Ok(()) => Ok(Self { port }),
            Err(error) => {
                // Xen may keep the channel. No other domain knows the port, so this does no harm.
                let _closed = xen().event_channel_op(EventChannelOp::Close(port));
                Err(SuspendError::Store(error))
            }
        }
    }

    /// Sleeps until the toolstack asks or the deadline has passed. Returns true if it asked.
    pub fn wait(&self, deadline: Deadline) -> bool {
        while !shared_page::take_port(self.port) {
            if deadline.has_passed() {
                return false;
            }
            let timeout = Some(deadline.nanoseconds());
            // If Xen refuses to sleep, the loop runs again.
            let _slept = untraced().sched_op(SchedOp::Poll { port: Some(self.port), timeout });
        }
        true
    }

    /// Suspends the domain. Returns when it runs again.
    ///
    /// Afterwards events are configured as at boot: those of the vCPU's own port are delivered, all
    /// others are masked.
    ///
    /// # Errors
    /// Xen refused to suspend the domain. Nothing has changed.
    ///
    /// # Panics
    /// If Xen refuses a restored domain its shared page or its events.
    pub fn suspend(self) -> Result<Resumed, SuspendError> {
        console::drain();
        events::mask();
        // SAFETY: `open` checked that there is one vCPU and published the place of the P2M. Events
        // are masked. After a restore, `resume` is called before anything else.
        match unsafe { guest().suspend() } {
            Ok(Suspended::Restored) => {
                resume();
                Ok(Resumed::Restored)
            }
            Ok(Suspended::Cancelled) => {
                events::unmask();
                Ok(Resumed::Kept)
            }
            Err(errno) => {
                events::unmask();
                Err(SuspendError::Xen("SCHEDOP_shutdown", errno))
            }
        }
    }
}

/// Publishes the place of a PV guest's P2M for the toolstack.
fn publish_p2m(machine: &Machine) {
    let top = machine.top_table().and_then(|pfn| machine.p2m.mfn(pfn));
    if let (Some(address), Some(top)) = (machine.p2m.table_address(), top) {
        shared_page::publish_p2m(machine.p2m.frames(), address, top);
    }
}

/// Sets up what a restored domain has lost: the shared page and its events.
fn resume() {
    let console = match guest().resume() {
        Ok(console) => console,
        Err(errno) => panic!("sharing a page with Xen in the restored domain: {errno}"),
    };
    if let Some(port) = console {
        console::rebind_ring(port);
    }
    if let Err((step, errno)) = events::start() {
        panic!("{step} in the restored domain: {errno}");
    }
}
