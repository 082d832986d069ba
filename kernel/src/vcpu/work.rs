//! Work for other vCPUs, and what a vCPU does without any.
//!
//! A vCPU has a mailbox with room for one job. Whoever has work puts a job in there and notifies
//! the vCPU; the last vCPU that is done with a job notifies who waits for it. Jobs borrow: the
//! sender does not go on before all are done.
//!
//! Nobody spins, and no wake-up is lost. Who sleeps masks events first, then looks, and then sleeps
//! by a call that unmasks and sleeps in one step ([`events::block`]). What happens before the look
//! is seen by it. What happens after it comes with a notification that stays pending, because
//! events are masked, until Xen looks for one before it lets the vCPU sleep.

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use arrayvec::ArrayVec;

use super::local::of;
use super::{Local, MAX, VcpuId, current, local, online};
use crate::events;

/// Something to do, on the stack of the vCPU that waits for it.
struct Job<'a> {
    work: &'a (dyn Fn(VcpuId) + Sync),
    /// vCPUs that are not done with it.
    remaining: AtomicUsize,
    waiter: VcpuId,
}

/// Where a vCPU finds its work.
pub struct Mailbox(AtomicPtr<Job<'static>>);

impl Mailbox {
    /// Nothing to do.
    pub const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Takes no more work, for a vCPU that never looks.
    pub fn close(&self) {
        self.0.store(ptr::dangling_mut(), Ordering::Release);
    }
}

/// Why work can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// No such vCPU is up.
    Offline(VcpuId),
    /// It has work already, as the first vCPU always has.
    Busy(VcpuId),
    /// It is the one that asks, which could not wait for itself.
    Caller(VcpuId),
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline(id) => write!(f, "vCPU {} is not up", id.number()),
            Self::Busy(id) => write!(f, "vCPU {} has work already", id.number()),
            Self::Caller(id) => write!(f, "vCPU {} can't wait for itself", id.number()),
        }
    }
}

/// Runs `work` on vCPU `id` and `here` on this one, side by side, and waits for both.
///
/// # Errors
/// See [`Undelivered`]; then neither has run.
pub fn run_on<R>(
    id: VcpuId,
    work: &(dyn Fn() + Sync),
    here: impl FnOnce() -> R,
) -> Result<R, Undelivered> {
    if id == current() {
        return Err(Undelivered::Caller(id));
    }
    let target = of(id).ok_or(Undelivered::Offline(id))?;
    let work = |_: VcpuId| work();
    let job = Job { work: &work, remaining: AtomicUsize::new(1), waiter: current() };
    // SAFETY: `wait` below does not come back before the job is done.
    unsafe { post(target, &job)? };
    events::expect_notice();
    let result = here();
    wait(&job);
    Ok(result)
}

/// Runs `work` on every vCPU that is up, this one included, side by side, and waits for all. Each
/// is told its own number.
///
/// # Errors
/// See [`Undelivered`]: a vCPU has work already. Then some may have run `work`, all that do are
/// waited for, and this one has not run it.
pub fn everywhere(work: &(dyn Fn(VcpuId) + Sync)) -> Result<(), Undelivered> {
    let me = current();
    // Looked up once: a vCPU may still come up meanwhile, and must not be counted in one place and
    // left out in another.
    let others: ArrayVec<&Local, { MAX as usize }> =
        online().filter(|local| local.id != me).collect();
    let job = Job { work, remaining: AtomicUsize::new(others.len()), waiter: me };
    let mut posted = 0;
    let mut refused = None;
    for target in &others {
        // SAFETY: `wait` below does not come back before the job is done everywhere.
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
            if posted > 0 {
                events::expect_notice();
            }
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
unsafe fn post(target: &Local, job: &Job<'_>) -> Result<(), Undelivered> {
    let job = ptr::from_ref(job).cast_mut().cast::<Job<'static>>();
    target
        .mailbox
        .0
        .compare_exchange(ptr::null_mut(), job, Ordering::AcqRel, Ordering::Acquire)
        .map_err(|_| Undelivered::Busy(target.id))?;
    events::notify(target);
    Ok(())
}

/// Sleeps until nobody is at a job any more.
fn wait(job: &Job<'_>) {
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

/// Does what comes, and sleeps in between.
pub fn idle() -> ! {
    let mailbox = &local().mailbox.0;
    loop {
        events::mask();
        let job = mailbox.load(Ordering::Acquire);
        if job.is_null() {
            events::block();
            continue;
        }
        events::unmask();
        // SAFETY: who posted it waits until `remaining` is 0, to which this vCPU still counts.
        unsafe { carry_out(mailbox, job) };
    }
}

/// Runs a job and counts this vCPU off.
///
/// # Safety
/// The job is in the mailbox, and this vCPU counts to those that remain.
unsafe fn carry_out(mailbox: &AtomicPtr<Job<'static>>, job: *const Job<'static>) {
    // SAFETY: the caller's. The reference ends before the count goes down.
    let waiter = unsafe {
        let job = &*job;
        (job.work)(current());
        job.waiter
    };
    // Empty before the sender goes on, who may have more.
    mailbox.store(ptr::null_mut(), Ordering::Release);
    // SAFETY: the caller's. From here on the job may be gone.
    let last = unsafe { (*job).remaining.fetch_sub(1, Ordering::AcqRel) } == 1;
    if last && let Some(waiter) = of(waiter) {
        events::give_notice(waiter);
    }
}
