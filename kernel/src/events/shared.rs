//! The page that Xen shares with the domain (`struct shared_info` in `public/xen.h`).
//!
//! Xen writes it at any time: there is never a reference to it, only atomics of single fields.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use hypercall::ops::Port;
use hypercall::{VirtAddr, XenErrno};
use spin::Once;
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE};
use xen_sys::{shared_info, vcpu_info, vcpu_time_info};

use crate::kind::Kind;
use crate::layout::{self, slot};
use crate::paging::{READ_WRITE, set_window};
use crate::vcpu::VcpuId;

const _: () = assert!(size_of::<shared_info>() == 3136 && size_of::<vcpu_info>() == 64);

/// The kind of guest, set when the page is mapped.
static MAPPED: Once<Kind> = Once::new();

/// The kind of guest; `None` as long as the page is not mapped and there are no events.
pub fn kind() -> Option<Kind> {
    MAPPED.get().copied()
}

/// Maps the page and masks all ports: Xen starts with all unmasked.
///
/// # Errors
/// Xen's: it does not let the domain map the frame.
pub fn map(kind: Kind, page: Gfn) -> Result<(), XenErrno> {
    show(kind, page)?;
    for word in 0..64 {
        // SAFETY: within the page, which is mapped from here on for good.
        unsafe { AtomicU64::from_ptr(&raw mut (*at()).evtchn_mask[word]) }
            .store(u64::MAX, Ordering::Relaxed);
    }
    MAPPED.call_once(|| kind);
    Ok(())
}

/// Maps the page as it is.
///
/// # Errors
/// As of [`map`].
pub fn show(kind: Kind, page: Gfn) -> Result<(), XenErrno> {
    set_window(kind, slot::SHARED_INFO, Some((page, READ_WRITE)))
}

/// Takes the mapping away, for a domain that is saved: the frame is Xen's, and the toolstack is
/// free to refuse an entry that names none of the domain's (`normalise_pagetable` of libxenguest;
/// that of 4.17 let it pass). Whoever calls this has one vCPU, with events masked, and asks for no
/// time until the page is mapped again.
///
/// # Errors
/// Xen's.
pub fn hide(kind: Kind) -> Result<(), XenErrno> {
    set_window(kind, slot::SHARED_INFO, None)
}

/// Tells the toolstack where a PV guest's P2M is: `entries` entries from `address` on, by the page
/// tables whose top level is the machine frame `top`.
pub fn tell_p2m(entries: u64, address: VirtAddr, top: Mfn) {
    // SAFETY: the page is mapped; the fields are within it, and accessed as a whole.
    let [max_pfn, p2m_vaddr, p2m_cr3] = unsafe {
        let arch = &raw mut (*at()).arch;
        [&raw mut (*arch).max_pfn, &raw mut (*arch).p2m_vaddr, &raw mut (*arch).p2m_cr3]
            .map(|field| AtomicU64::from_ptr(field))
    };
    max_pfn.store(entries, Ordering::Release);
    p2m_vaddr.store(address.as_u64(), Ordering::Release);
    // Last: this is what says that there is a list.
    p2m_cr3.store(top.number() * PAGE_SIZE as u64, Ordering::Release);
}

fn at() -> *mut shared_info {
    layout::window(slot::SHARED_INFO).as_mut_ptr()
}

/// The part of a vCPU.
fn info(id: VcpuId) -> *mut vcpu_info {
    // SAFETY: the page has one for each number that a `VcpuId` can have.
    unsafe { &raw mut (*at()).vcpu_info[id.index()] }
}

fn upcall_mask(id: VcpuId) -> &'static AtomicU8 {
    // SAFETY: who has events has the page, mapped for good; Xen and the kernel both access the
    // byte as a whole.
    unsafe { AtomicU8::from_ptr(&raw mut (*info(id)).evtchn_upcall_mask) }
}

fn upcall_pending(id: VcpuId) -> &'static AtomicU8 {
    // SAFETY: as above.
    unsafe { AtomicU8::from_ptr(&raw mut (*info(id)).evtchn_upcall_pending) }
}

/// Has Xen deliver nothing to a PV vCPU.
pub fn mask_upcalls(id: VcpuId) {
    upcall_mask(id).store(1, Ordering::SeqCst);
}

/// Whether Xen delivers nothing to a PV vCPU.
pub fn masks_upcalls(id: VcpuId) -> bool {
    upcall_mask(id).load(Ordering::SeqCst) != 0
}

/// Has Xen deliver to a PV vCPU. Returns whether something is pending that Xen has not delivered.
pub fn unmask_upcalls(id: VcpuId) -> bool {
    upcall_mask(id).store(0, Ordering::SeqCst);
    upcall_pending(id).load(Ordering::SeqCst) != 0
}

/// Takes what is pending for a vCPU. Returns whether `port` was.
pub fn take(id: VcpuId, port: Port) -> bool {
    // In this order: Xen sets the port, then the selector, then the flag, each only if it was not
    // set before (`evtchn_2l_set_pending` in Xen's `event_2l.c`).
    upcall_pending(id).store(0, Ordering::SeqCst);
    // SAFETY: as for `upcall_mask`.
    unsafe { AtomicU64::from_ptr(&raw mut (*info(id)).evtchn_pending_sel) }
        .store(0, Ordering::SeqCst);
    take_port(port)
}

/// Takes what is pending at a port, masked or not. Returns whether there was something.
pub fn take_port(port: Port) -> bool {
    let (word, bit) = (port.0 as usize / 64, 1 << (port.0 % 64));
    // SAFETY: as for `upcall_mask`; the two-level ABI has 64 words of ports.
    let pending = unsafe { AtomicU64::from_ptr(&raw mut (*at()).evtchn_pending[word % 64]) };
    pending.fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

/// What Xen says of the time of a vCPU. Only good if the version is even and the same before and
/// after.
pub fn time(id: VcpuId) -> vcpu_time_info {
    fence(Ordering::SeqCst);
    // SAFETY: as for `upcall_mask`; a torn reading is told by its version.
    let time = unsafe { (&raw const (*info(id)).time).read_volatile() };
    fence(Ordering::SeqCst);
    time
}
