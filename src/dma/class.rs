//! What the allocator remembers for each class of addresses.

use core::array;
use core::sync::atomic::Ordering::Relaxed;

use super::constraints::Constraints;
use super::plan::Plan;
use super::reserve::{CLASSES, class_of};
use crate::addr::{Gfn, Order, PAGE_SIZE};
use crate::sync::{AtomicU8, AtomicU64};

/// Classes up to this one are scarce: devices with 32 address bits or fewer need them.
const SCARCE: usize = 20;

/// The order of the first extent that joins the reserve ahead of need.
const FIRST_GROWTH: u8 = 2;

/// The largest such extent: 2 MiB.
const LARGEST_GROWTH: u8 = 9;

/// Returns the highest class whose blocks a device with this mask reaches, wholly or in part.
pub(super) const fn class_of_mask(mask: u64) -> usize {
    let frames = mask / PAGE_SIZE as u64;
    class_of(Gfn::new(frames), 1)
}

/// Returns the number of frames below a class.
pub(super) const fn class_start(class: usize) -> u64 {
    if class == 0 { 0 } else { 1 << (class - 1) }
}

/// Set in an entry of [`Growth`] until the class has grown.
const FRESH: u8 = 0x80;

/// How far memory of each class is taken ahead of need: the first growth is small, and each later one
/// doubles what was taken before.
#[derive(Debug)]
pub(super) struct Growth([AtomicU8; CLASSES]);

impl Default for Growth {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU8::new(FIRST_GROWTH | FRESH)))
    }
}

impl Growth {
    /// Returns the order to grow by next.
    pub fn next(&self, class: usize) -> Order {
        let order = self.0[class].load(Relaxed) & !FRESH;
        Order::new(order.into()).unwrap_or(Order::ZERO)
    }

    /// Records that the class grew by an extent of `order`.
    pub fn grew(&self, class: usize, order: Order) {
        let is_first = self.0[class].load(Relaxed) & FRESH != 0;
        let next = order.get() as u8 + u8::from(!is_first);
        self.0[class].store(next.clamp(FIRST_GROWTH, LARGEST_GROWTH), Relaxed);
    }

    /// Records that Xen has no extent of `order` in the class.
    pub fn refused(&self, class: usize, order: Order) {
        self.0[class].store((order.get() as u8).saturating_sub(1), Relaxed);
    }

    /// Records that requests for `frames` frames will follow.
    pub fn expect(&self, class: usize, frames: u64) {
        let order = frames.next_power_of_two().ilog2().min(LARGEST_GROWTH.into()) as u8;
        let expected = |growth: u8| Some((growth & !FRESH).max(order) | growth & FRESH);
        let _always_set = self.0[class].fetch_update(Relaxed, Relaxed, expected);
    }

    /// Starts anew with small extents.
    pub fn reset(&self) {
        self.0.iter().for_each(|order| order.store(FIRST_GROWTH | FRESH, Relaxed));
    }
}

/// Numbers of scarce frames, by class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScarceFrames([u64; SCARCE + 1]);

impl ScarceFrames {
    /// Counts a frame.
    pub fn add(&mut self, gfn: Gfn) {
        if let Some(count) = self.0.get_mut(class_of(gfn, 1)) {
            *count += 1;
        }
    }

    /// Returns the number of frames of a class.
    pub fn of_class(&self, class: usize) -> u64 {
        self.0.get(class).copied().unwrap_or(0)
    }

    /// Iterates over the classes that have frames, with their number.
    pub fn by_class(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.into_iter().enumerate().filter(|(_, frames)| *frames > 0)
    }

    /// Returns the number of frames of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns these frames without those that remain.
    pub fn without(mut self, remaining: &Self) -> Self {
        for (count, remaining) in self.0.iter_mut().zip(remaining.0) {
            *count = count.saturating_sub(remaining);
        }
        self
    }
}

/// Frames that were obtained from Xen for devices and that the kernel has now, by class.
#[derive(Debug)]
pub(super) struct LentFrames([AtomicU64; SCARCE + 1]);

impl Default for LentFrames {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl LentFrames {
    /// Returns true if the allocator keeps account of the class.
    pub const fn is_scarce(class: usize) -> bool {
        class <= SCARCE
    }

    /// Counts frames that the kernel received.
    pub fn lend(&self, class: usize, frames: u64) {
        if let Some(lent) = self.0.get(class) {
            lent.fetch_add(frames, Relaxed);
        }
    }

    /// Counts frames of all classes that the kernel received.
    pub fn lend_all(&self, frames: &ScarceFrames) {
        for (class, frames) in frames.0.iter().enumerate() {
            self.lend(class, *frames);
        }
    }

    /// Counts frames that the kernel no longer has. Returns how many of them were lent.
    pub fn settle(&self, class: usize, frames: u64) -> u64 {
        let Some(lent) = self.0.get(class) else { return 0 };
        let settled = lent.fetch_update(Relaxed, Relaxed, |lent| Some(lent - lent.min(frames)));
        settled.map_or(0, |before| before.min(frames))
    }

    /// Counts frames of all classes that the kernel no longer has.
    pub fn settle_all(&self, frames: &ScarceFrames) {
        for (class, frames) in frames.0.iter().enumerate() {
            self.settle(class, *frames);
        }
    }

    /// Counts from 0 again.
    pub fn forget(&self) {
        self.0.iter().for_each(|lent| lent.store(0, Relaxed));
    }

    /// Returns the number of frames of a class that the kernel has.
    pub fn of_class(&self, class: usize) -> u64 {
        self.0.get(class).map_or(0, |lent| lent.load(Relaxed))
    }

    /// Returns the highest class up to `highest` of which the kernel has frames.
    pub fn highest_class(&self, highest: usize) -> Option<usize> {
        (0..self.0.len()).rev().find(|class| *class <= highest && self.of_class(*class) > 0)
    }

    /// Returns the number of frames of a class and lower ones.
    pub fn up_to(&self, class: usize) -> u64 {
        (0..=class).map(|class| self.of_class(class)).sum()
    }

    /// Returns the number of frames of all classes.
    pub fn total(&self) -> u64 {
        (0..self.0.len()).map(|class| self.of_class(class)).sum()
    }
}

/// How often the search before an exchange is left out. After the third search in vain it is left out
/// once, and after each further one twice as often, up to 31 times in a row.
#[derive(Debug)]
pub(super) struct Backoff([AtomicU64; CLASSES]);

impl Default for Backoff {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Backoff {
    /// The misses in a row that are counted.
    const MOST_MISSES: u64 = 7;

    /// Returns true if the search for memory of the class is worth its cost.
    pub fn is_due(&self, class: usize) -> bool {
        let less = |state: u64| (state & 0xff > 0).then(|| state - 1);
        self.0[class].fetch_update(Relaxed, Relaxed, less).is_err()
    }

    /// Records whether a search found memory. The number of misses is above the lowest byte, which counts the
    /// searches to leave out.
    pub fn note(&self, class: usize, found: bool) {
        let misses = ((self.0[class].load(Relaxed) >> 8) + 1).min(Self::MOST_MISSES);
        let left_out = (1 << misses.saturating_sub(2)) - 1;
        self.0[class].store(if found { 0 } else { misses << 8 | left_out }, Relaxed);
    }

    /// Starts anew, because memory became free.
    pub fn reset(&self) {
        self.0.iter().for_each(|state| state.store(0, Relaxed));
    }
}

impl Plan {
    /// Returns the same request for memory from the address `lowest` on, unless that is out of reach.
    pub(super) fn not_below(&self, lowest: u64) -> Option<Self> {
        if lowest <= self.limits().lowest() {
            return Some(*self);
        }
        let limits = self.limits().to_builder().lowest(lowest).build().ok()?;
        Self::new(self.size(), &limits).ok()
    }

    /// Returns a request for a whole block within the same reach.
    pub(super) fn for_block(&self, order: Order) -> Option<Self> {
        let (mask, lowest) = (self.limits().mask(), self.limits().lowest());
        let limits = Constraints::builder().mask(mask).lowest(lowest).build().ok()?;
        Self::new(order.bytes(), &limits).ok()
    }

    /// Returns the classes that the device reaches, wholly or in part, a bit for each.
    pub(super) const fn classes(&self) -> u64 {
        let lowest = class_of(Gfn::new(self.limits().lowest() / PAGE_SIZE as u64), 1);
        let highest = class_of_mask(self.limits().mask());
        u64::MAX << lowest & !(u64::MAX << highest << 1)
    }
}
