//! Does the allocator of coherent buffers fulfil its contract on a real Xen?
//!
//! The same questions are tested against the model on the host (`tests/dma.rs`). Here Xen's own M2P
//! confirms every frame, and the guest's memory is real. Such memory may fit as it is, and then
//! nothing would be tested. Therefore most of these tests first [confine](helpers::ConfinedGuest) the
//! guest to a few frames of which no two are neighbours in the machine.
//!
//! | file | question |
//! |---|---|
//! | [`sizes`] | is a buffer of any size contiguous and zeroed, and is the surplus ordinary memory? |
//! | [`constraints`] | is each constraint of a device kept, segments included? |
//! | [`contiguous`] | does memory in use become contiguous in place, with its bytes? |
//! | [`hypercalls`] | how many hypercalls does an order need, cold and warm? |
//! | [`many`] | is a set of buffers allocated completely or not at all? |
//! | [`halves`] | do the halves of a buffer keep contents and addresses, and is each freed? |
//! | [`release`] | does memory return to Xen when the kernel trims, and only then? |
//! | [`sequence`] | does a trim return all scarce memory after any sequence of requests? |
//! | [`pool`] | are a pool's objects sound, and are they allocated without a hypercall in atomic context? |
//! | [`streaming`] | what does it cost to map memory for a device, in place and bounced? |
//! | [`refusals`] | does every refusal return its own error, with no frame lost? |
//! | [`translated`] | PVH: is memory below a mask contiguous for the device, or refused by name? |
//! | [`limits`] | the limits of a device as plain numbers |
//! | [`helpers`] | helpers of these tests and of the soak |

mod constraints;
pub(super) mod contiguous;
mod halves;
pub(super) mod helpers;
mod hypercalls;
mod limits;
mod many;
mod pool;
mod refusals;
mod release;
mod sequence;
mod sizes;
mod streaming;
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
    sequence::add(tests);
    pool::add(tests);
    streaming::add(tests);
    refusals::add(tests);
    translated::add(tests);
}
