//! Lists that a hypercall's argument points to.
//!
//! They are the test's own memory. A list may also lie in a guest frame: in the memory of a guest
//! with real memory, or because a test declares it. The model reads and writes such a list only
//! while the guest's page tables map the frame, as Xen does ([M3](xen_contig::rules#M3)).

#![expect(unsafe_code, reason = "the argument of a hypercall is a raw pointer, here as in Xen")]

use std::ops::Range;

use hypercall::XenErrno;

use crate::machine::MachineState;

/// Addresses at which no list of a PV guest may begin (`__addr_ok`): those that are not canonical, and
/// Xen's part of the address space.
const BARRED: Range<u64> = 1 << 47..0xffff_8800_0000_0000;

/// Lists that were declared to lie in guest frames.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub lists: Vec<(Range<u64>, u64)>,
}

impl MachineState {
    /// Returns true if a list of `count` entries, read from entry `done` on, can be the guest's
    /// (`guest_handle_subrange_okay`). For a PV guest Xen checks the first address and the length;
    /// copying finds the other errors. For a translated guest Xen checks nothing.
    pub fn plausible(&self, list: *mut u64, done: u64, count: u64) -> bool {
        let start = (list as u64).wrapping_add(done.wrapping_mul(8));
        let fits = count.wrapping_sub(done) < u64::MAX / 8;
        self.domain.is_translated() || fits && !BARRED.contains(&start)
    }

    /// Reads an entry of a list that is an argument of the hypercall under way.
    pub fn read(&self, list: *mut u64, index: u64) -> Result<u64, XenErrno> {
        self.reachable(list, index, false)?;
        // SAFETY: the contract of the hypercall demands a list of as many entries as its argument
        // counts ([M3](xen_contig::rules#M3)), and the model reads none beyond. A list in a guest
        // frame is mapped, as `reachable` checked.
        Ok(unsafe { list.add(index as usize).read() })
    }

    /// Writes an entry of such a list.
    pub fn write(&self, list: *mut u64, index: u64, value: u64) -> Result<(), XenErrno> {
        self.reachable(list, index, true)?;
        // SAFETY: the contract of the hypercall demands a writable list of as many entries as its
        // argument counts, which nothing else accesses ([M3](xen_contig::rules#M3)). A list in a
        // guest frame is mapped writable, as `reachable` checked.
        unsafe { list.add(index as usize).write(value) };
        Ok(())
    }

    fn reachable(&self, list: *mut u64, index: u64, write: bool) -> Result<(), XenErrno> {
        // Lists lie in memory of the host, which ends where the barred addresses begin.
        let address = (list as u64).wrapping_add(index.wrapping_mul(8));
        if list.is_null() || address >= BARRED.start {
            return Err(XenErrno::EFAULT);
        }
        let page = match self.places.lists.iter().find(|(at, _)| at.contains(&address)) {
            Some((range, pfn)) => self.layout.linear_page(pfn + (address - range.start) / 4096),
            None if self.in_window(address) => address >> 12,
            None => return Ok(()),
        };
        match self.mapping_of(page) {
            pte if pte.is_present() && (pte.is_writable() || !write) => Ok(()),
            _ => Err(XenErrno::EFAULT),
        }
    }

    fn in_window(&self, address: u64) -> bool {
        self.ram.as_ref().is_some_and(|ram| ram.contains(address >> 12))
    }
}
