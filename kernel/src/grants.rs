//! The grant table: the frames that another domain may map (`public/grant_table.h`, version 1).
//!
//! The kernel uses one in a PV guest only. It has one frame.

use core::fmt;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use hypercall::abi::grant_table::{
    FIRST_FREE_REFERENCE, GrantEntry, PERMIT_ACCESS, READING, WRITING,
};
use hypercall::ops::GrantTableOp;
use hypercall::{DomId, Xen, XenErrno};
use spin::Mutex;
use xen_contig::addr::{Gfn, PAGE_SIZE, Pfn};
use xen_contig::paging::Holder;

use crate::guest::guest;
use crate::layout::{READ_WRITE, slot, window};
use crate::machine::Machine;
use crate::vcpu::xen;

/// The number of entries in the table.
const ENTRIES: u32 = (PAGE_SIZE / size_of::<GrantEntry>()) as u32;

/// The number of grants. The table is mapped while this is not 0.
///
/// The table's frame belongs to Xen, and a toolstack may refuse to save a domain that maps it. The lock
/// also keeps two callers from taking the same entry.
static GRANTS: Mutex<u32> = Mutex::new(0);

/// A frame that another domain may map, until [`end`](Grant::end).
#[derive(Debug)]
pub struct Grant {
    reference: u32,
    pfn: Pfn,
}

/// The reason why a frame was not granted, or a grant not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// Xen refused a step.
    Xen(&'static str, XenErrno),
    /// Xen did not set up the table, with this status (`GNTST_*` in `public/grant_table.h`).
    Status(i16),
    /// All entries are in use.
    Full,
    /// The frame has no memory, or a number that an entry cannot hold.
    Frame(Pfn),
    /// The other domain still maps the frame.
    InUse {
        /// The grant reference.
        reference: u32,
    },
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(step, errno) => write!(f, "{step}: {errno}"),
            Self::Status(status) => {
                write!(f, "GNTTABOP_setup_table: Xen reports the status {status}")
            }
            Self::Full => write!(f, "all {ENTRIES} entries of the grant table are in use"),
            Self::Frame(pfn) => write!(f, "pfn {pfn} cannot be granted by an entry of version 1"),
            Self::InUse { reference } => {
                write!(f, "the other domain still maps the frame of grant reference {reference}")
            }
        }
    }
}

impl core::error::Error for GrantError {}

impl Grant {
    /// Lets another domain map a frame, readable and writable.
    ///
    /// The kernel then names the grant if Xen refuses to exchange the frame.
    ///
    /// # Safety
    /// Nothing else uses the frame until [`end`](Self::end) succeeded, and no Rust reference to it
    /// exists: the other domain may write to it at any time.
    ///
    /// # Errors
    /// Xen did not set up the table, or all entries are in use.
    pub unsafe fn new(machine: &Machine, pfn: Pfn, to: DomId) -> Result<Self, GrantError> {
        let frame = machine.p2m.gfn(pfn).and_then(|gfn| u32::try_from(gfn.number()).ok());
        let frame = frame.ok_or(GrantError::Frame(pfn))?;
        let mut grants = GRANTS.lock();
        if *grants == 0 {
            map_table()?;
        }
        let is_free = |index: &u32| flags(*index).load(Ordering::Acquire) == 0;
        let reference = (FIRST_FREE_REFERENCE..ENTRIES).find(is_free).ok_or(GrantError::Full)?;
        let entry = entry(reference);
        // SAFETY: the entry lies within the mapped table. It is free, so Xen does not read these
        // fields, and the lock keeps other callers away.
        unsafe {
            (&raw mut (*entry).domid).write_volatile(to.0);
            AtomicU32::from_ptr(&raw mut (*entry).frame).store(frame, Ordering::Relaxed);
        }
        // This store comes last, because it makes the entry valid.
        flags(reference).store(PERMIT_ACCESS, Ordering::Release);
        *grants += 1;
        machine.linear.note_use(pfn, Holder::Granted { reference });
        Ok(Self { reference, pfn })
    }

    /// Returns the number by which the other domain names the grant.
    pub const fn reference(&self) -> u32 {
        self.reference
    }

    /// Ends the other domain's access.
    ///
    /// # Errors
    /// The other domain still maps the frame. The grant is returned.
    pub fn end(self, machine: &Machine) -> Result<(), (Self, GrantError)> {
        let mut grants = GRANTS.lock();
        let flags = flags(self.reference);
        let mut now = flags.load(Ordering::Acquire);
        // Xen sets the bits when the other domain maps the frame, perhaps at this moment.
        while now & (READING | WRITING) == 0 {
            match flags.compare_exchange(now, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    machine.linear.forget_use(self.pfn);
                    *grants -= 1;
                    if *grants == 0 {
                        // Xen never refuses this. If it did, the next grant would map the table again.
                        let _unmapped = guest().set_window(slot::GRANT_TABLE, None);
                    }
                    return Ok(());
                }
                Err(changed) => now = changed,
            }
        }
        let error = GrantError::InUse { reference: self.reference };
        Err((self, error))
    }
}

/// Has Xen set up a table of one frame, and maps it.
fn map_table() -> Result<(), GrantError> {
    let (mut frames, mut status) = ([0], 0);
    let op = GrantTableOp::SetupTable { frames: &mut frames, status: &mut status };
    xen().grant_table_op(op).map_err(|errno| GrantError::Xen("GNTTABOP_setup_table", errno))?;
    if status != 0 {
        return Err(GrantError::Status(status));
    }
    let target = Some((Gfn::new(frames[0]), READ_WRITE));
    let mapped = guest().set_window(slot::GRANT_TABLE, target);
    mapped.map_err(|errno| GrantError::Xen("mapping the grant table", errno))
}

/// Returns the address of an entry. It is mapped while a grant exists.
fn entry(reference: u32) -> *mut GrantEntry {
    window(slot::GRANT_TABLE).as_mut_ptr::<GrantEntry>().wrapping_add(reference as usize)
}

fn flags(reference: u32) -> &'static AtomicU16 {
    // SAFETY: callers use the flags only while the table is mapped, and `reference` is below `ENTRIES`. Xen and
    // the kernel both access the flags as a whole.
    unsafe { AtomicU16::from_ptr(&raw mut (*entry(reference)).flags) }
}
