//! The state that the PV or PVH part of the boot code hands over to the common part.

use arrayvec::ArrayVec;
use hypercall::XenErrno;
use pvh_boot::start_info::pvh::MAX_COMMAND_LINE;
use xen_contig::addr::Pfn;
use xen_contig::p2m::{M2p, P2m};

use crate::paging::Linear;

/// The command line, as the user wrote it.
pub struct CommandLine {
    /// Its bytes, which need not be UTF-8.
    pub bytes: ArrayVec<u8, MAX_COMMAND_LINE>,
    /// The number of bytes after which Xen cuts it, without a message. `None` if Xen never does.
    pub cut_after: Option<usize>,
}

/// The longest command line of a PV guest, and of a PVH dom0 of Xen up to 4.20
/// (`MAX_GUEST_CMDLINE` in `public/xen.h`, minus its NUL).
pub const CUT_AFTER: usize = 1023;

impl CommandLine {
    /// Copies a command line. Both readers refuse one that does not fit.
    pub fn new(bytes: &[u8], cut_after: Option<usize>) -> Self {
        Self { bytes: bytes.iter().copied().take(MAX_COMMAND_LINE).collect(), cut_after }
    }
}

/// The state that the PV or PVH part of the boot code hands over to the common part.
///
/// The kernel's page tables are in use, and there is no heap yet. A run of frames is a pair: the
/// first frame, and the frame after the last.
pub struct BootState {
    /// The command line.
    pub command_line: CommandLine,
    /// True in dom0.
    pub initial_domain: bool,
    /// The table from guest frames to machine frames.
    pub p2m: P2m<'static>,
    /// Xen's M2P, which a PV guest may read.
    pub m2p: Option<M2p>,
    /// The frame of a PV guest's start info.
    pub start_info: Option<Pfn>,
    /// The linear mapping.
    pub linear: Linear,
    /// The first of the run of first-level tables of a PV guest's areas.
    pub area_tables: Option<Pfn>,
    /// The number of frames with memory.
    pub memory: u64,
    /// The number of frames in the memory map that Xen had no memory for. They were returned to
    /// Xen.
    pub unbacked: Result<u64, XenErrno>,
    /// Frames that the kernel shares with other domains, and their names.
    pub shared: ArrayVec<(Pfn, &'static str), 2>,
    /// The run of unused frames from which heap and bitmap are cut, at its front.
    pub spare: (u64, u64),
    /// Other runs of unused frames. Some may be empty.
    pub others: ArrayVec<(u64, u64), 160>,
}
