//! The page by which the guest asks the backend to access registers (`public/io/pciif.h`).

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use hypercall::abi::pci::{ACTIVE, CONF_READ, CONF_WRITE, PciOp, PciSharedInfo};
use hypercall::ops::{EventChannelOp, Port, SchedOp};
use hypercall::{Xen, XenErrno};
use pci_types::PciAddress;
use xen_contig::addr::{PAGE_SIZE, Pfn};

use super::FrontendError;
use super::xenbus::TIMEOUT_SECONDS;
use crate::hypervisor::untraced;
use crate::layout::image_frame;
use crate::shared_page;
use crate::time::Deadline;
use crate::vcpu::xen;

/// The page. It belongs to the image, so it is never exchanged.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

// SAFETY: the page is accessed through raw pointers only, by the holder of the connection and by the
// backend.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; PAGE_SIZE]));

/// Returns the frame of the page.
pub fn frame() -> Pfn {
    image_frame(PAGE.0.get() as u64)
}

/// An access to a register.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Reads the register.
    Read,
    /// Writes this value to the register.
    Write(u32),
}

/// Has the backend access a register of 32 bits.
///
/// Returns the error and the value of the answer.
///
/// # Errors
/// Xen refuses to notify the backend, or the backend does not answer.
pub fn ask(
    port: Port,
    address: PciAddress,
    offset: u16,
    access: Access,
) -> Result<(i32, u32), FrontendError> {
    let (cmd, value) = match access {
        Access::Read => (CONF_READ, 0),
        Access::Write(value) => (CONF_WRITE, value),
    };
    let request = PciOp {
        cmd,
        err: 0,
        domain: address.segment().into(),
        bus: address.bus().into(),
        devfn: u32::from(address.device()) << 3 | u32::from(address.function()),
        offset: offset.into(),
        size: 4,
        value,
        info: 0,
        msix_entries: [[0; 2]; 128],
    };
    let page = PAGE.0.get().cast::<PciSharedInfo>();
    // SAFETY: the structure lies within the page, which is aligned. The flag is clear, so the backend
    // does not use the request. The caller has the connection, so no other vCPU does.
    unsafe { (&raw mut (*page).op).write_volatile(request) };
    // SAFETY: the flags lie within the page, and both sides access them as a whole.
    let flags = unsafe { AtomicU32::from_ptr(&raw mut (*page).flags) };
    flags.fetch_or(ACTIVE, Ordering::SeqCst);
    notify(port).map_err(|errno| FrontendError::Xen("EVTCHNOP_send", errno))?;
    let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
    while flags.load(Ordering::SeqCst) & ACTIVE != 0 {
        if deadline.has_passed() {
            return Err(FrontendError::Silent);
        }
        // A pending event means that the backend may have answered: the flag is read again without a sleep.
        if !shared_page::take_port(port) {
            // If Xen refuses to sleep, the loop runs again.
            let timeout = Some(deadline.nanoseconds());
            let _slept = untraced().sched_op(SchedOp::Poll { port: Some(port), timeout });
        }
    }
    // SAFETY: the structure lies within the page, which is aligned. The backend has cleared the flag, so
    // it does not write the answer any more.
    let PciOp { err, value, .. } = unsafe { (&raw const (*page).op).read_volatile() };
    Ok((err, value))
}

fn notify(port: Port) -> Result<(), XenErrno> {
    xen().event_channel_op(EventChannelOp::Send(port)).map(|_| ())
}
