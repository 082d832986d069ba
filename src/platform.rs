//! What the embedding kernel supplies.

use hypercall::Xen;

use crate::exchange::Accounts;
use crate::frames::{Candidate, FrameRun};
use crate::p2m::P2m;
use crate::paging::LinearMapping;

/// The kernel around this component: its Xen, its mapping of memory, its free frames.
///
/// # Safety
/// Duties of the implementor:
/// * all methods speak of one and the same guest, always the same;
/// * [`take`](Self::take) and [`take_where`](Self::take_where) hand out runs that nobody else owns
///   (M1), that nothing but the linear mapping maps (S2), and in which no Rust object lies;
/// * what [`lists`](Self::lists) lends is mapped writable and belongs to no run that was taken (M3).
pub unsafe trait Platform {
    /// The seam to Xen.
    type Xen: Xen;
    /// The linear mapping.
    type Memory: LinearMapping;
    /// Memory for extent lists, given back when dropped.
    type Lists<'p>: AsMut<[u64]>
    where
        Self: 'p;

    /// The seam to Xen.
    fn xen(&self) -> &Self::Xen;

    /// The linear mapping.
    fn memory(&self) -> &Self::Memory;

    /// From guest frames to machine frames.
    fn p2m(&self) -> &P2m<'_>;

    /// Where lost frames are counted.
    fn accounts(&self) -> &Accounts;

    /// Takes a run of `frames` free frames whose first is a multiple of `align`, a power of two.
    fn take(&self, frames: u64, align: u64) -> Option<FrameRun>;

    /// Takes a run of `frames` free frames that `fits` accepts, asking it `budget` times at most.
    /// A kernel that can't search answers `None`; then more is exchanged than needs to be.
    fn take_where(
        &self,
        frames: u64,
        budget: u32,
        fits: &mut dyn FnMut(crate::addr::Pfn) -> Candidate,
    ) -> Option<FrameRun>;

    /// Takes a run back as ordinary memory.
    fn give(&self, run: FrameRun);

    /// Lends `words` words for extent lists.
    fn lists(&self, words: u64) -> Option<Self::Lists<'_>>;
}
