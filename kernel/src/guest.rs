//! The operations that differ between a PV guest and a PVH guest.
//!
//! The entry chooses one of the two implementations, `pv::guest::Pv` or
//! `pvh::guest::Pvh`, before the kernel has a heap. The choice never changes.

use hypercall::abi::xenstore::StoreRing;
use hypercall::ops::{Port, Suspended};
use hypercall::{PageTableFlags, XenErrno};
use spin::Once;
use xen_contig::addr::Gfn;

use crate::vcpu::Local;

/// A step that Xen refused, and its error.
pub type Refused = (&'static str, XenErrno);

/// The first function of a vCPU, which runs on the vCPU's own stack.
pub type VcpuEntry = extern "C" fn(&'static Local) -> !;

/// The operations that differ between a PV guest and a PVH guest.
pub trait Guest: Sync {
    /// The kind of guest, as the console names it.
    fn name(&self) -> &'static str;

    /// Keeps events from being delivered on this vCPU. They stay pending.
    fn mask_events(&self);

    /// Returns true if events are kept from being delivered on this vCPU.
    fn masks_events(&self) -> bool;

    /// Lets events be delivered on this vCPU, and delivers pending ones at once.
    fn unmask_events(&self);

    /// Unmasks events and sleeps until one has come, in one step.
    ///
    /// An event that is already pending ends the sleep before it begins.
    fn block(&self);

    /// Tells Xen how to deliver events to the first vCPU, and leaves them masked.
    ///
    /// # Errors
    /// Xen refused it.
    fn deliver_events(&self) -> Result<(), Refused>;

    /// Maps a frame at a window slot, or removes what is mapped there.
    ///
    /// # Errors
    /// Xen does not let a PV guest map the frame with these flags.
    fn set_window(&self, slot: u64, target: Option<(Gfn, PageTableFlags)>) -> Result<(), XenErrno>;

    /// Lets this vCPU use I/O ports.
    ///
    /// # Errors
    /// Xen refused it.
    fn allow_ports(&self) -> Result<(), XenErrno>;

    /// Gives Xen the state in which a vCPU starts: at `entry`, with events masked.
    ///
    /// # Safety
    /// The vCPU has never run, and no other vCPU uses its stacks.
    ///
    /// # Errors
    /// Xen refused it.
    unsafe fn initialise_vcpu(
        &self,
        vcpu: &'static Local,
        entry: VcpuEntry,
    ) -> Result<(), XenErrno>;

    /// Sets up what the first state of a vCPU does not contain. Runs first on that vCPU.
    fn enter_vcpu(&self, vcpu: &'static Local);

    /// Maps the xenstore ring; `None` if the domain has none.
    ///
    /// # Errors
    /// Xen refused to say where the ring is, or to map it.
    fn store_ring(&self) -> Result<Option<(*mut StoreRing, Port)>, XenErrno>;

    /// Suspends the domain. Returns when it runs again.
    ///
    /// # Safety
    /// - The domain has one vCPU, and its events are masked.
    /// - In a PV guest the shared page tells the toolstack where the P2M is.
    /// - After [`Suspended::Restored`], [`resume`](Self::resume) comes before any use of the shared
    ///   page or of event channels.
    ///
    /// # Errors
    /// Xen refused it. Everything is as before.
    unsafe fn suspend(&self) -> Result<Suspended, XenErrno>;

    /// Maps the shared page of a restored domain. Returns the port of its console, if it has one.
    ///
    /// # Errors
    /// Xen refused it.
    fn resume(&self) -> Result<Option<Port>, XenErrno>;
}

static CHOSEN: Once<&'static dyn Guest> = Once::new();

/// Chooses the kind of guest. The first choice counts.
pub fn choose(guest: &'static dyn Guest) {
    CHOSEN.call_once(|| guest);
}

/// The operations of the kind of guest that this domain is.
///
/// # Panics
/// Before [`choose`].
pub fn guest() -> &'static dyn Guest {
    *CHOSEN.get().expect("the entry chooses the kind of guest first")
}
