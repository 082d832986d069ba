//! What the PV or PVH part of booting hands over to the common part.

use arrayvec::{ArrayString, ArrayVec};
use hypercall::XenErrno;
use xen_contig::addr::Pfn;
use xen_contig::p2m::{M2p, P2m};

use crate::paging::Linear;

/// A command line. Its size is that of the longest one in either start info.
pub type CommandLine = ArrayString<4096>;

/// What the PV or PVH part of booting hands over to the common part.
///
/// The kernel's page tables are in force; there is no heap yet. Runs of frames are pairs: the first
/// frame, and the one past the last.
pub struct BootState {
    /// The command line.
    pub command_line: CommandLine,
    /// Whether this is dom0.
    pub initial_domain: bool,
    /// From guest frames to machine frames.
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
    /// The number of frames that the memory map names and that Xen has no memory for. They were returned
    /// to Xen.
    pub unbacked: Result<u64, XenErrno>,
    /// Frames that the kernel shares with other domains, and their names.
    pub shared: ArrayVec<(Pfn, &'static str), 2>,
    /// The run of unused frames from whose front the bitmap and the heap are cut.
    pub spare: (u64, u64),
    /// Other runs of unused frames. Some may be empty.
    pub others: ArrayVec<(u64, u64), 160>,
}
