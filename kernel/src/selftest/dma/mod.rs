//! Does the allocator of coherent buffers keep its word on a real Xen?
//!
//! The model answers the same questions on the host (`tests/dma.rs`). Here Xen's own M2P is the
//! judge of every frame, and the memory is a real guest's: what it has may fit as it is, and then
//! nothing would be tried. So most of these tests first [confine](ground::Confined) the guest to a
//! few frames of which no two are neighbours in the machine.
//!
//! | file | question |
//! |---|---|
//! | [`sizes`] | does every odd size come, contiguous and zeroed, and is the rest ordinary memory? |
//! | [`constraints`] | is each constraint of a device kept, segments included? |
//! | [`contiguous`] | does memory in use become contiguous in place, with its bytes? |
//! | [`hypercalls`] | how many hypercalls does an order take, cold and warm? |
//! | [`many`] | is a set of buffers had all or not at all, and with one flush? |
//! | [`halves`] | do the halves of a buffer keep content and addresses, and go back each? |
//! | [`release`] | does memory return to Xen when the kernel trims, and only then? |
//! | [`pool`] | are a pool's objects sound, and had without a hypercall where none may be made? |
//! | [`refusals`] | is every refusal told by name, with nothing lost? |
//! | [`translated`] | PVH: contiguous for the device below a mask, or a refusal that says so? |
//! | [`ground`] | what these tests and the soak stand on |

mod constraints;
pub(super) mod contiguous;
pub(super) mod ground;
mod halves;
mod hypercalls;
mod many;
mod pool;
mod refusals;
mod release;
mod sizes;
mod translated;

use alloc::vec::Vec;

use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};

pub fn add(tests: &mut Vec<Test>) {
    sizes::add(tests);
    constraints::add(tests);
    contiguous::add(tests);
    hypercalls::add(tests);
    many::add(tests);
    halves::add(tests);
    release::add(tests);
    pool::add(tests);
    refusals::add(tests);
    translated::add(tests);
}
