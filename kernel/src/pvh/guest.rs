//! The operations of a PVH guest.

use core::arch::asm;

use hypercall::abi::hvm::HVM_PARAM_CALLBACK_TYPE_VECTOR;
use hypercall::abi::memory::{AddToPhysmap, XENMAPSPACE_SHARED_INFO};
use hypercall::abi::xenstore::StoreRing;
use hypercall::ops::{HvmOp, HvmParamIndex, MemoryOp, Port, Suspended};
use hypercall::{DomId, PageTableFlags, Xen, XenErrno};
use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::registers::model_specific::GsBase;
use xen_contig::addr::{Gfn, Pfn};

use super::descriptors::{self, UPCALL_VECTOR};
use super::{paging, vcpu};
use crate::guest::{Guest, Refused, VcpuEntry};
use crate::hypervisor::untraced;
use crate::layout::{self, READ_WRITE, slot};
use crate::shared_page;
use crate::vcpu::{Local, xen};

/// The operations of a PVH guest.
pub struct Pvh {
    /// The frame of the page that Xen shares with the domain.
    shared_page: Once<Pfn>,
}

/// The only PVH guest.
pub(super) static PVH: Pvh = Pvh { shared_page: Once::new() };

impl Pvh {
    /// Puts the page that Xen shares with the domain at a spare frame. Later calls keep the first
    /// frame.
    ///
    /// Xen frees the memory that backs the frame. In a restored domain no memory backs it.
    ///
    /// # Safety
    /// No other code uses the frame from now on.
    ///
    /// # Errors
    /// Xen refused to place the page.
    pub(super) unsafe fn share_page(&self, frame: Pfn) -> Result<(), XenErrno> {
        let frame = *self.shared_page.call_once(|| frame);
        let argument = AddToPhysmap {
            domid: DomId::SELF,
            size: 0,
            space: XENMAPSPACE_SHARED_INFO,
            idx: 0,
            gpfn: frame.number(),
        };
        // SAFETY: by this function's contract no other code uses the frame.
        unsafe { xen().memory_op(MemoryOp::AddToPhysmap(&argument)) }?;
        shared_page::map(Gfn::new(frame.number()))
    }
}

impl Guest for Pvh {
    fn name(&self) -> &'static str {
        "PVH"
    }

    fn mask_events(&self) {
        interrupts::disable();
    }

    fn masks_events(&self) -> bool {
        !interrupts::are_enabled()
    }

    fn unmask_events(&self) {
        interrupts::enable();
    }

    fn block(&self) {
        // `SCHEDOP_block` would leave the interrupt flag cleared, so that Xen would deliver no
        // events. `sti` takes effect after the next instruction, so no event arrives between the
        // two. Xen treats `hlt` as `SCHEDOP_block`.
        //
        // SAFETY: the handler of events preserves all registers and memory of the code that it
        // interrupts.
        unsafe { asm!("sti", "hlt", options(nostack)) };
    }

    fn deliver_events(&self) -> Result<(), Refused> {
        let via = HVM_PARAM_CALLBACK_TYPE_VECTOR | u64::from(UPCALL_VECTOR);
        // SAFETY: the interrupt descriptor table has an entry for this vector, which expects the frame
        // of an interrupt.
        unsafe { xen().set_hvm_param(HvmParamIndex::CallbackIrq, via) }
            .map_err(|errno| ("HVM_PARAM_CALLBACK_IRQ", errno))?;
        Ok(())
    }

    fn set_window(&self, slot: u64, target: Option<(Gfn, PageTableFlags)>) -> Result<(), XenErrno> {
        paging::set_window(slot, target);
        Ok(())
    }

    fn allow_ports(&self) -> Result<(), XenErrno> {
        // A PVH guest may use the ports that Xen gives it without asking.
        Ok(())
    }

    unsafe fn initialise_vcpu(
        &self,
        vcpu: &'static Local,
        entry: VcpuEntry,
    ) -> Result<(), XenErrno> {
        // SAFETY: both functions have the same contract.
        unsafe { vcpu::initialise(vcpu, entry) }
    }

    fn enter_vcpu(&self, vcpu: &'static Local) {
        GsBase::write(vcpu.gs_base());
        descriptors::load(vcpu);
    }

    fn store_ring(&self) -> Result<Option<(*mut StoreRing, Port)>, XenErrno> {
        let param = |index| xen().hvm_op(HvmOp::GetParam(index));
        let page = param(HvmParamIndex::StorePfn)?;
        let port = u32::try_from(param(HvmParamIndex::StoreEvtchn)?);
        let (1.., Ok(port @ 1..)) = (page, port) else { return Ok(None) };
        paging::set_window(slot::XENSTORE, Some((Gfn::new(page), READ_WRITE)));
        Ok(Some((layout::window(slot::XENSTORE).as_mut_ptr(), Port(port))))
    }

    unsafe fn suspend(&self) -> Result<Suspended, XenErrno> {
        // SAFETY: by this function's contract the domain has one vCPU, with events masked. A PVH
        // guest does not have a start info page. `resume` sets up what a restored domain has lost,
        // before anything uses it.
        unsafe { untraced().suspend(None) }
    }

    fn resume(&self) -> Result<Option<Port>, XenErrno> {
        let page = *self.shared_page.get().expect("boot shares a page");
        // SAFETY: `boot` took the frame from its free memory for this page alone.
        unsafe { self.share_page(page) }?;
        Ok(console_ring().map(|(_, port)| port))
    }
}

/// Returns the frame of the console ring of a PVH domU and its event channel. dom0 has no ring.
pub(super) fn console_ring() -> Option<(Gfn, Port)> {
    let param = |index| -> Result<u64, XenErrno> { untraced().hvm_op(HvmOp::GetParam(index)) };
    let page = param(HvmParamIndex::ConsolePfn).ok().filter(|pfn| *pfn != 0 && *pfn < 1 << 40)?;
    let port = param(HvmParamIndex::ConsoleEvtchn).ok().filter(|port| *port != 0)?;
    Some((Gfn::new(page), Port(u32::try_from(port).ok()?)))
}
