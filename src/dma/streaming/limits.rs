//! What a bounce buffer must be for a device.

use crate::addr::{Order, PAGE_SIZE};
use crate::dma::constraints::{Backing, Constraints, ConstraintsBuilder};
use crate::dma::plan::Plan;
use crate::dma::{AllocError, Allocator};
use crate::exchange::Capability;
use crate::platform::Platform;

/// The largest power of two, which no segment crosses.
const NO_BOUNDARY: u64 = 1 << 63;

/// Plans a bounce buffer that has a page for each bounced page. Each page may lie anywhere in reach.
pub fn plan_by_page(bytes: u64, limits: &Constraints) -> Result<Plan, AllocError> {
    let limits = limits.to_builder().align(1).boundary(NO_BOUNDARY);
    plan(bytes, limits.max_segment(u64::MAX).max_segments(usize::MAX))
}

/// Plans a bounce buffer that has all bytes of a mapping, and that the device takes as it is.
pub fn plan_dense(bytes: u64, limits: &Constraints) -> Result<Plan, AllocError> {
    plan(bytes, limits.to_builder().align(limits.streaming_align()))
}

/// Plans a bounce buffer, which is copied to before a device gets its address.
fn plan(bytes: u64, limits: ConstraintsBuilder) -> Result<Plan, AllocError> {
    let limits = limits.backing(Backing::Any).frame_align(PAGE_SIZE as u64).build()?;
    Plan::new(bytes, &limits).map(Plan::keeping_content)
}

/// Returns the limits with segments no longer than the extents that Xen permits this domain.
pub fn within_order_limit<P: Platform>(
    allocator: &Allocator<P>,
    limits: &Constraints,
) -> Constraints {
    let longest = match allocator.capability() {
        Capability::Exchange { limit } => limit.bytes(),
        // The guest's own numbering is contiguous at any length.
        Capability::Refill { .. } | Capability::None { .. } => u64::MAX,
    };
    let shorter = limits.to_builder().max_segment(limits.max_segment().min(longest));
    shorter.build().unwrap_or(*limits)
}

/// Returns the most bytes that can be mapped wherever they lie, as far as limits tell.
pub fn max_mapping<P: Platform>(allocator: &Allocator<P>, limits: &Constraints) -> u64 {
    let limits = within_order_limit(allocator, limits);
    // If a length can be planned, so can each shorter one. `low` can be planned, `high` cannot.
    let (mut low, mut high) = (0, Order::MAX.bytes() + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if plan_dense(middle, &limits).is_ok() { low = middle } else { high = middle }
    }
    low
}
