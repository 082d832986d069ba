//! The number of events that the vCPUs send each other.
//!
//! The kernel keeps no count of its own that could be wrong: the traces of the vCPUs count the
//! hypercalls.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hypercall::trace::Hypercall;

use super::{TestOutcome, error};
use crate::smp;
use crate::vcpu::{self, Local};

/// Returns the result of `act`, and how many events the vCPUs sent each other meanwhile.
///
/// The kernel sends events for jobs only: one to each vCPU that starts a job, and one back from the
/// last vCPU that finishes it.
pub fn sent_during<R>(act: impl FnOnce() -> R) -> Result<(R, u64), TestOutcome> {
    let before = sent()?;
    let result = act();
    let after = sent()?;
    // The first reading is a job too.
    Ok((result, (after - before).saturating_sub(of_a_job())))
}

/// Returns how many events a job for all vCPUs needs.
pub fn of_a_job() -> u64 {
    let others = vcpu::count() as u64 - 1;
    others + others.min(1)
}

/// Adds up the counts of all vCPUs.
///
/// Each vCPU reads its own count, so that the events which it sent at the end of an earlier job are
/// in it.
fn sent() -> Result<u64, TestOutcome> {
    let own = |vcpu: &Local| vcpu.xen.summary().row(Hypercall::EventChannelOp).calls;
    let me = vcpu::current();
    let sum = AtomicU64::new(own(vcpu::local()));
    let add = |id| {
        if id != me {
            sum.fetch_add(own(vcpu::local()), Relaxed);
        }
    };
    match smp::everywhere(&add) {
        Ok(()) => Ok(sum.into_inner()),
        Err(why) => error!("{why}"),
    }
}
