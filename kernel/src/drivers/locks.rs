//! The operations of the lock in the buffer pools of the crate `dma-api`.
//!
//! The crate takes its lock from `ax-sync`, which leaves the operations to the kernel.

use core::hint;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};

use ax_sync::interface::{AcquireResult, ContextState, LockMetadata, SpinOps};

/// The empty state: the kernel has no preemption, and no event handler takes such a lock.
const UNCHANGED: ContextState = ContextState::new(0, 0);

struct KernelLocks;

#[ax_crate_interface::impl_interface]
impl SpinOps for KernelLocks {
    fn acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> ContextState {
        while locked.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        UNCHANGED
    }

    fn try_acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock_addr: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> AcquireResult {
        AcquireResult::new(!locked.swap(true, Ordering::Acquire), UNCHANGED)
    }

    fn release(locked: &AtomicBool, _lock_addr: usize, _context: u8, _state: ContextState) {
        locked.store(false, Ordering::Release);
    }

    fn force_release(locked: &AtomicBool, _lock_addr: usize, _context: u8) {
        locked.store(false, Ordering::Release);
    }

    fn is_locked(locked: &AtomicBool) -> bool {
        locked.load(Ordering::Relaxed)
    }
}
