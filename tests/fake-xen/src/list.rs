//! Lists that a hypercall's argument points to.
//!
//! They are the test's own memory. A test may declare that a list lies in a guest frame: then the
//! model reads and writes it only while the guest's linear mapping maps that frame, as Xen would
//! (M3).

#![expect(unsafe_code, reason = "the argument of a hypercall is a raw pointer, here as in Xen")]

use std::ops::Range;

use hypercall::XenErrno;

use crate::guest::LINEAR;
use crate::machine::Machine;

/// The first address that is none, and the first behind Xen's own part of the address space: no
/// list of a PV guest's may begin between them (`__addr_ok`).
const BARRED: Range<u64> = 1 << 47..0xffff_8800_0000_0000;

/// Lists that were declared to lie in guest frames.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub lists: Vec<(Range<u64>, u64)>,
}

impl Machine {
    /// Whether a list of `count` entries, of which the first `done` are not looked at, can be the
    /// guest's (`guest_handle_subrange_okay`). Of a PV guest's Xen looks at the first address and at
    /// the length, and leaves the rest to the copying; of a translated guest's at nothing.
    pub fn plausible(&self, list: *mut u64, done: u64, count: u64) -> bool {
        let start = (list as u64).wrapping_add(done.wrapping_mul(8));
        let fits = count.wrapping_sub(done) < u64::MAX / 8;
        self.domain.is_translated() || fits && !BARRED.contains(&start)
    }

    /// Reads an entry of a list that is an argument of the hypercall under way.
    pub fn read(&self, list: *mut u64, index: u64) -> Result<u64, XenErrno> {
        self.reachable(list, index, false)?;
        // SAFETY: whoever made the hypercall answers for the list (M3), and the model asks for no
        // entry beyond the count that came with it.
        Ok(unsafe { list.add(index as usize).read() })
    }

    /// Writes an entry of such a list.
    pub fn write(&self, list: *mut u64, index: u64, value: u64) -> Result<(), XenErrno> {
        self.reachable(list, index, true)?;
        // SAFETY: as above; M3 says that nobody else uses the list meanwhile.
        unsafe { list.add(index as usize).write(value) };
        Ok(())
    }

    fn reachable(&self, list: *mut u64, index: u64, write: bool) -> Result<(), XenErrno> {
        // The host's memory, which lists lie in, ends where barred addresses begin.
        let address = (list as u64).wrapping_add(index.wrapping_mul(8));
        if list.is_null() || address >= BARRED.start {
            return Err(XenErrno::EFAULT);
        }
        let Some((range, pfn)) = self.places.lists.iter().find(|(at, _)| at.contains(&address))
        else {
            return Ok(());
        };
        let page = (LINEAR >> 12) + pfn + (address - range.start) / 4096;
        let pte = self.entry_of(page).map(|entry| self.read_entry(entry));
        match pte {
            Some(pte) if pte.is_present() && (pte.is_writable() || !write) => Ok(()),
            _ => Err(XenErrno::EFAULT),
        }
    }
}
