//! The allocator: what it knows of its guest, and what it has in reserve.

use super::class::{Backoff, Growth, LentFrames};
use super::counters::Counters;
use super::reserve::{CLASSES, Reserve, class_of};
use super::retain::{Retain, Watermarks};
use crate::addr::Pfn;
use crate::exchange::{Capability, Exchanger};
use crate::platform::Platform;
use crate::sync::AtomicU64;

/// Hands out coherent buffers of one guest.
///
/// A request is served from the reserve if a block fits. Otherwise free memory of the kernel that fits
/// joins the reserve, or Xen exchanges ordinary frames. Several vCPUs may allocate at the same time: no
/// lock is held during a hypercall, and none while the kernel's frame allocator is called.
///
/// # Alignment
/// A buffer for a device that takes one segment begins at a multiple of the smallest power of two of
/// pages that holds it, as with Linux's `dma_alloc_coherent`. Devices with more segments get what
/// [`align`](super::ConstraintsBuilder::align) asks for.
#[derive(Debug)]
pub struct Allocator<P: Platform> {
    platform: P,
    capability: Capability,
    pub(super) watermarks: Watermarks,
    pub(super) reserve: Reserve<P>,
    pub(super) growth: Growth,
    pub(super) lent: LentFrames,
    pub(super) counters: Counters,
    /// The highest class in which the guest had memory at the start.
    top_class: usize,
    /// Where the next slice of the kernel's free memory begins that is searched.
    pub(super) search_from: AtomicU64,
    pub(super) backoff: Backoff,
    /// The highest class of what Xen handed out without a limit the last time.
    pub(super) highest_offer: AtomicU64,
    /// By order: whether Xen is asked for extents of it when memory is returned. It may have none above
    /// scarce memory.
    pub(super) extents_of_xen: Backoff,
}

impl<P: Platform> Allocator<P> {
    /// Returns an allocator for the guest that `platform` describes.
    ///
    /// Asks Xen for the order limit by at most 20 hypercalls, which move nothing. Takes no lock and does not
    /// sleep. After a migration to another Xen the limit stays that of the first, so make another allocator
    /// to ask again.
    pub fn new(platform: P, retain: Retain) -> Self {
        let capability = Capability::ask(platform.xen(), platform.p2m());
        let top_class = class_of_guest(&platform);
        let watermarks = Watermarks::new(retain, platform.p2m().frames());
        Self {
            platform,
            capability,
            watermarks,
            reserve: Reserve::new(),
            growth: Growth::default(),
            lent: LentFrames::default(),
            counters: Counters::default(),
            top_class,
            search_from: AtomicU64::new(0),
            backoff: Backoff::default(),
            highest_offer: AtomicU64::new(CLASSES as u64),
            extents_of_xen: Backoff::default(),
        }
    }

    /// Returns the embedding kernel.
    pub const fn platform(&self) -> &P {
        &self.platform
    }

    /// Returns which memory this domain can get, and why.
    pub const fn capability(&self) -> Capability {
        self.capability
    }

    /// Returns the highest class in which the guest had memory at the start.
    pub(super) const fn top_class(&self) -> usize {
        self.top_class
    }

    /// Borrows lists of `words` words from the kernel. A list that is shorter counts as none.
    pub(super) fn lists(&self, words: u64) -> Option<P::Lists<'_>> {
        let mut lists = self.platform.lists(words)?;
        (lists.as_mut().len() as u64 >= words).then_some(lists)
    }

    /// Returns the exchange of a PV guest.
    pub(super) fn exchanger(&self) -> Option<Exchanger<'_, P::Xen, P::Linear>> {
        let Capability::Exchange { limit } = self.capability else { return None };
        let platform = &self.platform;
        let linear = platform.linear()?;
        // SAFETY: all that a platform returns belongs to one guest, and runs come from its frame
        // allocator alone ([M1](crate::rules#M1)): the promises of the trait `Platform`.
        Some(unsafe {
            Exchanger::new(platform.xen(), *platform.p2m(), linear, platform.accounts(), limit)
                .with_options(platform.exchange_options())
        })
    }
}

/// Returns the highest class in which the guest has memory, from a sample of its frames.
fn class_of_guest<P: Platform>(platform: &P) -> usize {
    const SAMPLES: u64 = 4096;
    let p2m = platform.p2m();
    let step = (p2m.frames() / SAMPLES).max(1);
    let sample = (0..p2m.frames()).step_by(step as usize).map(Pfn::new);
    let classes = sample.filter_map(|pfn| p2m.gfn(pfn)).map(|gfn| class_of(gfn, 1));
    classes.max().unwrap_or(0)
}
