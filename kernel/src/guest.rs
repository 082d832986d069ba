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

/// The name of a step that Xen refused, and the error.
pub type Refused = (&'static str, XenErrno);

/// The first function of a vCPU, which runs on the vCPU's own stack.
pub type VcpuEntry = extern "C" fn(&'static Local) -> !;

/// The operations that differ between a PV guest and a PVH guest.
pub trait Guest: Sync {
    /// Returns the kind of guest, as the console names it.
    fn name(&self) -> &'static str;

    /// Keeps events from being delivered on this vCPU. They stay pending.
    fn mask_events(&self);

    /// Returns true if events are kept from being delivered on this vCPU.
    fn masks_events(&self) -> bool;

    /// Lets events be delivered on this vCPU, and delivers pending ones at once.
    fn unmask_events(&self);

    /// Unmasks events and sleeps until an event arrives.
    ///
    /// Both happen in one step, so an event that is already pending ends the sleep at once.
    fn block(&self);

    /// Configures how Xen delivers events to the first vCPU, and leaves them masked.
    ///
    /// # Errors
    /// Xen refused the configuration.
    fn deliver_events(&self) -> Result<(), Refused>;

    /// Maps a frame at a window slot, or removes the mapping if `target` is `None`.
    ///
    /// # Errors
    /// Xen does not let a PV guest map the frame with these flags.
    fn set_window(&self, slot: u64, target: Option<(Gfn, PageTableFlags)>) -> Result<(), XenErrno>;

    /// Lets this vCPU use I/O ports.
    ///
    /// # Errors
    /// Xen refused the access.
    fn allow_ports(&self) -> Result<(), XenErrno>;

    /// Sets the state in which a vCPU starts: at `entry`, with events masked.
    ///
    /// # Safety
    /// The vCPU has never run, and no other vCPU uses its stacks.
    ///
    /// # Errors
    /// Xen refused the state.
    unsafe fn initialise_vcpu(
        &self,
        vcpu: &'static Local,
        entry: VcpuEntry,
    ) -> Result<(), XenErrno>;

    /// Sets up what the first state of a vCPU cannot contain. Runs first on that vCPU.
    fn enter_vcpu(&self, vcpu: &'static Local);

    /// Maps the xenstore ring. Returns `None` if the domain does not have one.
    ///
    /// # Errors
    /// Xen did not report where the ring is, or refused the mapping.
    fn store_ring(&self) -> Result<Option<(*mut StoreRing, Port)>, XenErrno>;

    /// Suspends the domain. Returns when it runs again.
    ///
    /// # Safety
    /// - The domain has one vCPU, and its events are masked.
    /// - The shared page of a PV guest says where the P2M is, for the toolstack.
    /// - After [`Suspended::Restored`], [`resume`](Self::resume) is called before any use of the
    ///   shared page or of event channels.
    ///
    /// # Errors
    /// Xen refused to suspend the domain. Nothing has changed.
    unsafe fn suspend(&self) -> Result<Suspended, XenErrno>;

    /// Maps the shared page of a restored domain. Returns the port of its console, if it has one.
    ///
    /// # Errors
    /// Xen refused the mapping.
    fn resume(&self) -> Result<Option<Port>, XenErrno>;
}

static CHOSEN: Once<&'static dyn Guest> = Once::new();

/// Chooses the kind of guest. Later calls have no effect.
pub fn choose(guest: &'static dyn Guest) {
    CHOSEN.call_once(|| guest);
}

/// Returns the operations of the kind of guest that this domain is.
///
/// # Panics
/// If [`choose`] was not called before.
pub fn guest() -> &'static dyn Guest {
    *CHOSEN.get().expect("the entry chooses the kind of guest first")
}
