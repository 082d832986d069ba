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

/// Xen's own part of the address space: no list may lie there.
const XEN_RANGE: Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;

/// Lists that were declared to lie in guest frames.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub lists: Vec<(Range<u64>, u64)>,
}

/// Whether `count` entries at `list` can be a guest's (`guest_handle_subrange_okay`).
pub(crate) fn plausible(list: *mut u64, count: u64) -> bool {
    let start = list as u64;
    match count.checked_mul(8).and_then(|bytes| start.checked_add(bytes)) {
        Some(end) => count == 0 || end <= XEN_RANGE.start || start >= XEN_RANGE.end,
        None => false,
    }
}

impl Machine {
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
        if list.is_null() {
            return Err(XenErrno::EFAULT);
        }
        let address = list as u64 + index * 8;
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
