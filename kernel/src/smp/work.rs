//! Work for other vCPUs, and the loop in which a vCPU waits for work.
//!
//! A vCPU has a mailbox with room for one job. The sender puts a job into it and notifies the vCPU.
//! The last vCPU that finishes the job notifies the waiting vCPU. A job borrows from the sender's
//! stack, so the sender continues only after all vCPUs have finished.
//!
//! A vCPU does not spin and does not miss a wake-up. Before it sleeps it masks events, checks its
//! mailbox, and then unmasks and sleeps in one step ([`events::block`]). The check sees every job
//! that was posted before it. A later job comes with a notification, which stays pending while
//! events are masked. Xen checks for pending events before it lets the vCPU sleep.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;

use crate::events;
use crate::vcpu::{Local, MAX, Mailbox, VcpuId, VcpuJob, current, local, of, online};

/// The reason why a vCPU did not receive work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkError {
    /// The vCPU is not up.
    Offline(VcpuId),
    /// The vCPU has work already. The first vCPU always has.
    Busy(VcpuId),
    /// The vCPU is the sender, which cannot wait for itself.
    Caller(VcpuId),
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(id) => write!(f, "vCPU {} is not up", id.number()),
            Self::Busy(id) => write!(f, "vCPU {} has work already", id.number()),
            Self::Caller(id) => write!(f, "vCPU {} cannot wait for itself", id.number()),
        }
    }
}

/// Runs `work` on vCPU `id` and `here` on this one at the same time, and waits for both.
///
/// # Errors
/// The vCPU did not receive the work. Then neither function has run.
pub fn run_on<R>(
    id: VcpuId,
    work: &(dyn Fn() + Sync),
    here: impl FnOnce() -> R,
) -> Result<R, WorkError> {
    if id == current() {
        return Err(WorkError::Caller(id));
    }
    let target = of(id).ok_or(WorkError::Offline(id))?;
    let work = |_: VcpuId| work();
    let job = VcpuJob { work: &work, remaining: AtomicUsize::new(1), waiter: current() };
    // SAFETY: `wait` below returns only when the job's `remaining` is 0.
    unsafe { post(target, &job)? };
    let result = here();
    wait(&job);
    Ok(result)
}

/// Runs `work` on every vCPU that is up, this one included, at the same time, and waits for all.
///
/// Each vCPU passes its own number to `work`.
///
/// # Errors
/// A vCPU has work already. Then other vCPUs may have run `work`, and this one has not.
pub fn everywhere(work: &(dyn Fn(VcpuId) + Sync)) -> Result<(), WorkError> {
    let me = current();
    // One list serves for counting and for sending, because a vCPU may come up between the two.
    let others: ArrayVec<&Local, { MAX as usize }> =
        online().filter(|local| local.id != me).collect();
    let job = VcpuJob { work, remaining: AtomicUsize::new(others.len()), waiter: me };
    let mut posted = 0;
    let mut refused = None;
    for target in &others {
        // SAFETY: `wait` below returns only when the job's `remaining` is 0.
        match unsafe { post(target, &job) } {
            Ok(()) => posted += 1,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    match refused {
        None => {
            work(me);
        }
        Some(_) => {
            job.remaining.fetch_sub(others.len() - posted, Ordering::AcqRel);
        }
    }
    wait(&job);
    refused.map_or(Ok(()), Err)
}

/// Puts a job into a mailbox and wakes its vCPU.
///
/// # Safety
/// The job lives until its `remaining` is 0.
unsafe fn post(target: &Local, job: &VcpuJob<'_>) -> Result<(), WorkError> {
    // SAFETY: by this function's contract the job lives until its `remaining` is 0.
    if !unsafe { target.mailbox.put(job) } {
        return Err(WorkError::Busy(target.id));
    }
    events::notify(target);
    Ok(())
}

/// Sleeps until all vCPUs have finished a job.
fn wait(job: &VcpuJob<'_>) {
    if job.remaining.load(Ordering::Acquire) == 0 {
        return;
    }
    loop {
        events::mask();
        if job.remaining.load(Ordering::Acquire) == 0 {
            events::unmask();
            return;
        }
        events::block();
    }
}

/// Runs the jobs of this vCPU, and sleeps while there is none.
pub fn idle() -> ! {
    let mailbox = &local().mailbox;
    loop {
        events::mask();
        let job = mailbox.job();
        if job.is_null() {
            events::block();
            continue;
        }
        events::unmask();
        // SAFETY: the job is in this vCPU's mailbox, and `remaining` still counts this vCPU.
        unsafe { carry_out(mailbox, job) };
    }
}

/// Runs a job and counts this vCPU as finished.
///
/// # Safety
/// The job is in the mailbox, and its `remaining` counts this vCPU.
unsafe fn carry_out(mailbox: &Mailbox, job: *const VcpuJob<'static>) {
    // SAFETY: by the contract of `Mailbox::put` the job lives until its `remaining` is 0, and by
    // this function's contract `remaining` counts this vCPU. The reference ends before `remaining`
    // is decremented.
    let waiter = unsafe {
        let job = &*job;
        (job.work)(current());
        job.waiter
    };
    // The mailbox is cleared before the sender continues, because the sender may post another job.
    mailbox.clear();
    // SAFETY: the job lives until `remaining` is 0, which may be the effect of this operation. The
    // job is not used after it.
    let last = unsafe { (*job).remaining.fetch_sub(1, Ordering::AcqRel) } == 1;
    if last && let Some(waiter) = of(waiter) {
        events::notify(waiter);
    }
}
