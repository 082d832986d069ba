//! The lock of the reserve: a spin lock that masks interrupts by the kernel's functions.

use core::hint;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

use crate::error::Failure;

/// Masks interrupts on the calling vCPU, and returns what restores their state.
pub type Mask = unsafe extern "C" fn() -> u64;
/// Restores the state that [`Mask`] returned.
pub type Restore = unsafe extern "C" fn(u64);

/// The kernel's functions. A lock is made by a constant, so it cannot have them itself; a program has one
/// kernel.
static MASK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static RESTORE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets the functions by which all locks mask interrupts.
///
/// # Errors
/// One of the two is missing, or another platform has set others.
pub fn set_functions(mask: Option<Mask>, restore: Option<Restore>) -> Result<(), Failure> {
    let (mask, restore) = match (mask, restore) {
        (None, None) => return Ok(()),
        (Some(mask), Some(restore)) => (mask as *mut (), restore as *mut ()),
        _ => return Err(Failure::HalfOfPair { first: "mask", second: "unmask" }),
    };
    for (function, place) in [(mask, &MASK), (restore, &RESTORE)] {
        let null = core::ptr::null_mut();
        if let Err(other) = place.compare_exchange(null, function, AcqRel, Acquire)
            && other != function
        {
            return Err(Failure::OtherMask);
        }
    }
    Ok(())
}

fn mask() -> u64 {
    let function = MASK.load(Acquire);
    if function.is_null() {
        return 0;
    }
    // SAFETY: only `set_functions` stores here, and it stores a `Mask`.
    let function = unsafe { core::mem::transmute::<*mut (), Mask>(function) };
    // SAFETY: the kernel's function may be called at any time: the header requires it.
    unsafe { function() }
}

fn restore(state: u64) {
    let function = RESTORE.load(Acquire);
    if function.is_null() {
        return;
    }
    // SAFETY: only `set_functions` stores here, and it stores a `Restore`.
    let function = unsafe { core::mem::transmute::<*mut (), Restore>(function) };
    // SAFETY: `mask` returned the state on this vCPU.
    unsafe { function(state) }
}

/// The lock of the reserve.
pub struct ReserveLock {
    locked: AtomicBool,
    /// What restores the interrupts of the vCPU that has the lock.
    state: AtomicU64,
}

// SAFETY: only the vCPU that changed `locked` from false to true has the lock, until it stores false.
unsafe impl lock_api::RawMutex for ReserveLock {
    const INIT: Self = Self { locked: AtomicBool::new(false), state: AtomicU64::new(0) };

    type GuardMarker = lock_api::GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.locked.load(Relaxed) {
                hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        let state = mask();
        let is_taken = self.locked.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        if is_taken {
            self.state.store(state, Relaxed);
        } else {
            restore(state);
        }
        is_taken
    }

    unsafe fn unlock(&self) {
        let state = self.state.load(Relaxed);
        self.locked.store(false, Release);
        restore(state);
    }
}
