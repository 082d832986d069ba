//! Mapping the memory of a function.

use core::fmt;

use hypercall::XenErrno;
use xen_contig::addr::{Gfn, PAGE_SIZE};

use super::bar::MemoryBar;
use crate::guest::guest;
use crate::layout::REGISTERS;

/// The refusal of Xen to map memory of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarNotPermitted {
    /// The memory.
    pub bar: MemoryBar,
    /// Xen's error.
    pub errno: XenErrno,
}

impl fmt::Display for BarNotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bar: MemoryBar { start, bytes }, errno } = self;
        write!(
            f,
            "BAR at {start:#x} ({} KiB) is not permitted: Xen refused to map it: {errno}",
            bytes.div_ceil(1024)
        )?;
        if *errno == XenErrno::EPERM {
            f.write_str("; pass the device to this domain by pci=[…], or the memory by iomem=[…]")?;
        }
        Ok(())
    }
}

impl core::error::Error for BarNotPermitted {}

impl MemoryBar {
    /// Maps a page of the memory at a window slot, uncached.
    ///
    /// # Errors
    /// Xen does not let the domain map the memory.
    pub fn map_page(&self, page: u64, slot: u64) -> Result<(), BarNotPermitted> {
        let frame = Gfn::new(self.start / PAGE_SIZE as u64 + page);
        let mapped = guest().set_window(slot, Some((frame, REGISTERS)));
        mapped.map_err(|errno| BarNotPermitted { bar: *self, errno })
    }
}
