//! The mailbox in which a vCPU finds its work. It has room for one job.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::id::VcpuId;

/// Work for one or more vCPUs. It lies on the stack of the vCPU that waits for it.
pub struct VcpuJob<'a> {
    /// The function to run. Each vCPU passes its own number.
    pub work: &'a (dyn Fn(VcpuId) + Sync),
    /// The number of vCPUs that have not finished the work.
    pub remaining: AtomicUsize,
    /// The vCPU that waits for the work.
    pub waiter: VcpuId,
}

/// The mailbox in which a vCPU finds its work.
pub struct Mailbox(AtomicPtr<VcpuJob<'static>>);

impl Mailbox {
    /// Returns an empty mailbox.
    pub const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns a mailbox that accepts no work, for a vCPU that never checks it.
    pub const fn closed() -> Self {
        Self(AtomicPtr::new(ptr::dangling_mut()))
    }

    /// Puts a job into the mailbox. Returns false if the mailbox is not empty.
    ///
    /// # Safety
    /// The job lives until its `remaining` is 0.
    pub unsafe fn put(&self, job: &VcpuJob<'_>) -> bool {
        let job = ptr::from_ref(job).cast_mut().cast::<VcpuJob<'static>>();
        self.0.compare_exchange(ptr::null_mut(), job, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns the job in the mailbox, or null if the mailbox is empty.
    pub fn job(&self) -> *const VcpuJob<'static> {
        self.0.load(Ordering::Acquire)
    }

    /// Empties the mailbox.
    pub fn clear(&self) {
        self.0.store(ptr::null_mut(), Ordering::Release);
    }
}
