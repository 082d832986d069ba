//! The page that Xen shares with the domain (`struct shared_info` in `public/xen.h`).
//!
//! Xen writes it at any time, so no Rust reference to it exists. All accesses are atomic or
//! volatile.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use hypercall::ops::Port;
use hypercall::{VirtAddr, XenErrno};
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE};
use xen_sys::{shared_info, vcpu_info, vcpu_time_info};

use crate::guest::guest;
use crate::layout::{self, READ_WRITE, slot};
use crate::vcpu::VcpuId;

const _: () = assert!(size_of::<shared_info>() == 3136 && size_of::<vcpu_info>() == 64);

/// Maps the page and masks all ports, because Xen starts with all ports unmasked.
///
/// # Errors
/// Xen does not let the domain map the frame.
pub fn map(page: Gfn) -> Result<(), XenErrno> {
    map_unchanged(page)?;
    for word in 0..64 {
        // SAFETY: `map_unchanged` has mapped the page, and the word lies within it.
        unsafe { AtomicU64::from_ptr(&raw mut (*at()).evtchn_mask[word]) }
            .store(u64::MAX, Ordering::Relaxed);
    }
    Ok(())
}

/// Maps the page without changing it.
///
/// # Errors
/// Xen does not let the domain map the frame.
pub fn map_unchanged(page: Gfn) -> Result<(), XenErrno> {
    guest().set_window(slot::SHARED_INFO, Some((page, READ_WRITE)))
}

/// Unmaps the page of a domain that is about to be saved.
///
/// The frame belongs to Xen. A toolstack may refuse a page-table entry that names a frame of
/// another owner (`normalise_pagetable` of libxenguest; that of 4.17 accepts it). Until the page is
/// mapped again, events are masked and the time is not read, because the domain has one vCPU. A
/// panic uses neither.
///
/// # Errors
/// Xen refused to remove the mapping.
pub fn unmap() -> Result<(), XenErrno> {
    guest().set_window(slot::SHARED_INFO, None)
}

/// Writes the place of a PV guest's P2M into the page, for the toolstack.
///
/// The P2M has `entries` entries from `address` on, mapped by the page tables whose top level is
/// the machine frame `top`.
pub fn publish_p2m(entries: u64, address: VirtAddr, top: Mfn) {
    // SAFETY: the page is mapped while the domain runs; the fields lie within it, and all accesses
    // to them are atomic.
    let [max_pfn, p2m_vaddr, p2m_cr3] = unsafe {
        let arch = &raw mut (*at()).arch;
        [&raw mut (*arch).max_pfn, &raw mut (*arch).p2m_vaddr, &raw mut (*arch).p2m_cr3]
            .map(|field| AtomicU64::from_ptr(field))
    };
    max_pfn.store(entries, Ordering::Release);
    p2m_vaddr.store(address.as_u64(), Ordering::Release);
    // This store comes last, because a value here announces the other two.
    p2m_cr3.store(top.number() * PAGE_SIZE as u64, Ordering::Release);
}

fn at() -> *mut shared_info {
    layout::window(slot::SHARED_INFO).as_mut_ptr()
}

/// Returns the part of the page that belongs to a vCPU.
fn info(id: VcpuId) -> *mut vcpu_info {
    // SAFETY: the page has an entry for each number that a `VcpuId` can have. This code computes an
    // address and accesses nothing.
    unsafe { &raw mut (*at()).vcpu_info[id.index()] }
}

fn upcall_mask(id: VcpuId) -> &'static AtomicU8 {
    // SAFETY: the page is mapped while the domain runs, and Xen and the kernel both access the byte
    // as a whole.
    unsafe { AtomicU8::from_ptr(&raw mut (*info(id)).evtchn_upcall_mask) }
}

fn upcall_pending(id: VcpuId) -> &'static AtomicU8 {
    // SAFETY: the page is mapped while the domain runs, and Xen and the kernel both access the byte
    // as a whole.
    unsafe { AtomicU8::from_ptr(&raw mut (*info(id)).evtchn_upcall_pending) }
}

/// Makes Xen deliver no events to a PV vCPU.
pub fn mask_upcalls(id: VcpuId) {
    upcall_mask(id).store(1, Ordering::SeqCst);
}

/// Returns true if Xen delivers no events to a PV vCPU.
pub fn masks_upcalls(id: VcpuId) -> bool {
    upcall_mask(id).load(Ordering::SeqCst) != 0
}

/// Makes Xen deliver events to a PV vCPU. Returns true if an undelivered event is pending.
pub fn unmask_upcalls(id: VcpuId) -> bool {
    upcall_mask(id).store(0, Ordering::SeqCst);
    upcall_pending(id).load(Ordering::SeqCst) != 0
}

/// Clears the pending events of a vCPU. Returns true if `port` was pending.
pub fn take(id: VcpuId, port: Port) -> bool {
    // The flag is cleared first and the port last. Xen sets the port, then the selector, then the
    // flag, each only if it was not set before (`evtchn_2l_set_pending` in Xen's `event_2l.c`).
    upcall_pending(id).store(0, Ordering::SeqCst);
    // SAFETY: the page is mapped while the domain runs, and all accesses to the word are atomic.
    unsafe { AtomicU64::from_ptr(&raw mut (*info(id)).evtchn_pending_sel) }
        .store(0, Ordering::SeqCst);
    take_port(port)
}

/// Clears the pending event of a port, masked or not. Returns true if one was pending.
pub fn take_port(port: Port) -> bool {
    let (word, bit) = (port.0 as usize / 64, 1 << (port.0 % 64));
    // SAFETY: the page is mapped while the domain runs, and all accesses to the word are atomic. The
    // two-level ABI has 64 words of ports.
    let pending = unsafe { AtomicU64::from_ptr(&raw mut (*at()).evtchn_pending[word % 64]) };
    pending.fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

/// Returns what Xen reports about the time of a vCPU.
///
/// The values are valid if the version is even and a second reading returns the same version.
pub fn time(id: VcpuId) -> vcpu_time_info {
    fence(Ordering::SeqCst);
    // SAFETY: the page is mapped while the domain runs. Xen may write at the same time, but all bit
    // patterns are valid, and the version tells the caller about it.
    let time = unsafe { (&raw const (*info(id)).time).read_volatile() };
    fence(Ordering::SeqCst);
    time
}
