//! The operations of a PV guest.

use hypercall::abi::xenstore::StoreRing;
use hypercall::ops::{PhysdevOp, Port, SchedOp, Suspended, VersionOp};
use hypercall::{PageTableFlags, Xen, XenErrno};
use spin::Once;
use xen_contig::addr::{Gfn, Mfn};

use super::start_info::StartInfoPage;
use super::{paging, traps, vcpu};
use crate::guest::{Guest, Refused, VcpuEntry};
use crate::hypervisor::untraced;
use crate::layout;
use crate::shared_page;
use crate::vcpu::{Local, current, xen};

/// The lowest privilege level with which Xen permits port I/O to a PV kernel (`iopl_ok` in Xen's
/// `pv/emul-priv-op.c`).
const KERNEL_LEVEL: u32 = 1;

/// The operations of a PV guest.
pub struct Pv {
    start_info: Once<StartInfoPage>,
}

/// The only PV guest.
pub(super) static PV: Pv = Pv { start_info: Once::new() };

impl Pv {
    /// Sets where the start info is. Later calls have no effect.
    pub(super) fn set_start_info(&self, start_info: StartInfoPage) {
        self.start_info.call_once(|| start_info);
    }

    fn start_info(&self) -> &StartInfoPage {
        self.start_info.get().expect("boot sets it")
    }
}

impl Guest for Pv {
    fn name(&self) -> &'static str {
        "PV"
    }

    fn mask_events(&self) {
        shared_page::mask_upcalls(current());
    }

    fn masks_events(&self) -> bool {
        shared_page::masks_upcalls(current())
    }

    fn unmask_events(&self) {
        if shared_page::unmask_upcalls(current()) {
            // Xen delivers pending events when it returns from any hypercall. This one has no other
            // effect, so its result does not matter.
            let _version = untraced().xen_version(VersionOp::Version);
        }
    }

    fn block(&self) {
        // The call is not traced, because such calls would fill the trace.
        if let Err(errno) = untraced().sched_op(SchedOp::Block) {
            panic!("SCHEDOP_block: {errno}");
        }
    }

    fn deliver_events(&self) -> Result<(), Refused> {
        traps::set_callbacks().map_err(|errno| ("set_callbacks", errno))?;
        shared_page::mask_upcalls(current());
        Ok(())
    }

    fn set_window(&self, slot: u64, target: Option<(Gfn, PageTableFlags)>) -> Result<(), XenErrno> {
        // A Gfn is the frame number in a page-table entry, which is the machine frame in PV.
        paging::set_window(slot, target.map(|(gfn, flags)| (Mfn::new(gfn.number()), flags)))
    }

    fn allow_ports(&self) -> Result<(), XenErrno> {
        xen().physdev_op(PhysdevOp::SetIopl(KERNEL_LEVEL)).map(|_| ())
    }

    unsafe fn initialise_vcpu(
        &self,
        vcpu: &'static Local,
        entry: VcpuEntry,
    ) -> Result<(), XenErrno> {
        shared_page::mask_upcalls(vcpu.id);
        // SAFETY: both functions have the same contract.
        unsafe { vcpu::initialise(vcpu, entry) }
    }

    fn enter_vcpu(&self, _vcpu: &'static Local) {
        // The first state of the vCPU already contains its GS base, its traps and its callbacks.
    }

    fn store_ring(&self) -> Result<Option<(*mut StoreRing, Port)>, XenErrno> {
        let ring = self.start_info().store_ring();
        Ok(ring.map(|(pfn, port)| (layout::linear(pfn).as_mut_ptr(), port)))
    }

    unsafe fn suspend(&self) -> Result<Suspended, XenErrno> {
        let info = self.start_info();
        let shared = info.shared_info();
        // The frame of the shared page does not belong to the domain, and the toolstack expects
        // guest frames for the rings.
        let rings = info.name_rings_by_guest_frame();
        if let Err(errno) = shared_page::unmap() {
            info.set_rings(rings);
            return Err(errno);
        }
        // SAFETY: by this function's contract the domain has one vCPU, its events are masked, and
        // the toolstack can find the P2M. The frame is that of the start info, which
        // `StartInfoPage` reads again each time. The shared page, which is not a frame of the
        // domain, is unmapped. `resume` sets up what a restored domain has lost, before anything
        // uses it.
        let answer = unsafe { untraced().suspend(Some(info.mfn())) };
        if answer != Ok(Suspended::Restored) {
            info.set_rings(rings);
            if let Err(errno) = shared_page::map_unchanged(shared) {
                panic!("mapping the shared page again, mfn {shared}: {errno}");
            }
        }
        answer
    }

    fn resume(&self) -> Result<Option<Port>, XenErrno> {
        let info = self.start_info();
        shared_page::map(info.shared_info())?;
        Ok(info.console())
    }
}
