//! Being saved: what a guest owes the toolstack before, and puts right after.
//!
//! `xl save`, `xl migrate` and `xl save -c` ask for it by an event channel that the guest names in
//! xenstore. The guest then gives up what the toolstack can't save, asks Xen to be suspended, and
//! comes back with the same memory contents, in a PV guest in other machine frames: the toolstack
//! rewrites P2M and page tables, and all that the guest has told a device is wrong
//! ([C75](xen_contig::conformance#C75)).
//!
//! | question | place |
//! |---|---|
//! | what does the toolstack read and rewrite in the start info? | [`start_info`] |
//! | how is a key written to xenstore? | [`xenstore`] |
//!
//! For a guest with one vCPU: others would have to be taken down before and started anew after.

mod start_info;
mod xenstore;

use core::fmt::{self, Write};

use arrayvec::ArrayString;
use hypercall::ops::{EventChannelOp, Port, SchedOp, Suspended};
use hypercall::{DomId, Xen, XenErrno};

use crate::boot::{console_ring, share_page};
use crate::events::{self, Deadline};
use crate::hypervisor::{untraced, xen};
use crate::kind::Kind;
use crate::machine::Machine;
use crate::{console, vcpu};

use start_info::StartInfo;
use xenstore::{Store, StoreError};

/// Where libxl looks for the port (`xs_suspend_evtchn_port`), below the domain's own path.
const KEY: &str = "device/suspend/event-channel";

/// Why a guest can't be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendError {
    /// It has several vCPUs.
    Vcpus(usize),
    /// It is dom0.
    InitialDomain,
    /// Xen refused this step.
    Xen(&'static str, XenErrno),
    /// The toolstack can't be told.
    Store(StoreError),
}

impl fmt::Display for SuspendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcpus(count) => write!(
                f,
                "this kernel is saved with one vCPU and has {count}: the others would have to be \
                 taken down"
            ),
            Self::InitialDomain => f.write_str("dom0 can't be saved"),
            Self::Xen(step, errno) => write!(f, "{step}: {errno}"),
            Self::Store(error) => write!(f, "{KEY}: {error}"),
        }
    }
}

/// How a guest comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// In a domain that was made anew.
    Restored,
    /// In the same domain, which was saved and kept, or not saved after all.
    Kept,
}

/// The event channel by which the toolstack asks.
pub struct Requests {
    port: Port,
}

impl Requests {
    /// Makes the event channel and names it in xenstore, and says where the P2M is. After
    /// [`Resumed::Restored`] this is to be done anew.
    ///
    /// # Errors
    /// The guest can't be saved, or can't say that it can.
    pub fn open(machine: &Machine) -> Result<Self, SuspendError> {
        if machine.initial_domain {
            return Err(SuspendError::InitialDomain);
        }
        if vcpu::count() > 1 {
            return Err(SuspendError::Vcpus(vcpu::count()));
        }
        tell_p2m(machine);
        let made = xen().event_channel_op(EventChannelOp::AllocUnbound { remote: DomId(0) });
        let port = made.map_err(|errno| SuspendError::Xen("EVTCHNOP_alloc_unbound", errno))?;
        let port = Port(port as u32);
        let mut text = ArrayString::<10>::new();
        let _fits = write!(text, "{}", port.0);
        let told = Store::open(machine).and_then(|mut store| store.write(KEY, &text));
        match told {
            Ok(()) => Ok(Self { port }),
            Err(error) => {
                // Nobody knows of the port; should Xen keep it, it does no harm.
                let _closed = xen().event_channel_op(EventChannelOp::Close(port));
                Err(SuspendError::Store(error))
            }
        }
    }

    /// Sleeps until the toolstack asks, or until the deadline has passed. Returns whether it asks.
    pub fn wait(&self, deadline: Deadline) -> bool {
        while !events::take_port(self.port) {
            if deadline.has_passed() {
                return false;
            }
            let timeout = Some(deadline.nanoseconds());
            // Should Xen refuse to sleep, the loop goes on without.
            let _slept = untraced().sched_op(SchedOp::Poll { port: Some(self.port), timeout });
        }
        true
    }
}

/// Tells the toolstack where a PV guest's P2M is.
fn tell_p2m(machine: &Machine) {
    let top = machine.top_table().and_then(|pfn| machine.p2m.mfn(pfn));
    if let (Some(address), Some(top)) = (machine.p2m.table_address(), top) {
        events::tell_p2m(machine.p2m.frames(), address, top);
    }
}

/// Has the domain suspended. Comes back when it runs again, with events as they are at boot: those
/// of the vCPU's own port delivered, all others masked.
///
/// # Errors
/// Xen's. Then all is as before.
///
/// # Panics
/// If Xen does not let a restored domain have what it gives one that boots.
pub fn suspend(machine: &Machine) -> Result<Resumed, SuspendError> {
    console::drain();
    events::mask();
    let answer = match StartInfo::of(machine) {
        Some(info) => suspend_pv(machine, info),
        // SAFETY: the module is for a guest with one vCPU, and events are masked. A translated guest has
        // no start info. `take_up` obtains anew what a restored domain has lost, before anything uses it.
        None => unsafe { untraced().suspend(None) },
    };
    let resumed = match answer {
        Ok(Suspended::Restored) => {
            take_up(machine);
            Ok(Resumed::Restored)
        }
        Ok(Suspended::Cancelled) => Ok(Resumed::Kept),
        Err(errno) => Err(SuspendError::Xen("SCHEDOP_shutdown", errno)),
    };
    if resumed != Ok(Resumed::Restored) {
        events::unmask();
    }
    resumed
}

/// The page that is shared with Xen is no frame of the domain, and the rings are to be named by
/// guest frames.
fn suspend_pv(machine: &Machine, info: StartInfo) -> Result<Suspended, XenErrno> {
    let guest_frame = |mfn| {
        // SAFETY: the rings are frames of this domain, hence RAM.
        let pfn = machine.m2p.and_then(|m2p| unsafe { m2p.pfn(mfn) });
        pfn.map(|pfn| pfn.number())
    };
    let shared = info.shared_info();
    let rings = info.to_guest_frames(guest_frame);
    if let Err(errno) = events::hide(Kind::Pv) {
        info.set(rings);
        return Err(errno);
    }
    // SAFETY: the frame is that of the start info, which `StartInfo` reads anew each time. The module is
    // for a guest with one vCPU, and events are masked. The shared page, which is no frame of the domain,
    // is hidden, and `tell_p2m` told the toolstack the P2M list. `suspend` calls `take_up` before
    // anything uses what a restored domain has lost.
    let answer = unsafe { untraced().suspend(Some(info.mfn())) };
    if answer != Ok(Suspended::Restored) {
        info.set(rings);
        if let Err(errno) = events::show(Kind::Pv, shared) {
            panic!("mapping the shared page again, mfn {shared}: {errno}");
        }
    }
    answer
}

/// What a restored domain has to be given anew: the shared page, its event channels, and the way
/// events come.
fn take_up(machine: &Machine) {
    let (shared, console) = match (StartInfo::of(machine), machine.shared_page) {
        (Some(info), _) => (events::map(Kind::Pv, info.shared_info()), info.console()),
        (None, Some(page)) => (share_page(page), console_ring().map(|(_, port)| port)),
        (None, None) => (Ok(()), None),
    };
    if let Err(errno) = shared {
        panic!("sharing a page with Xen in the restored domain: {errno}");
    }
    if let Some(port) = console {
        console::rebind_ring(port);
    }
    if let Err((step, errno)) = events::start(machine.kind) {
        panic!("{step} in the restored domain: {errno}");
    }
}
