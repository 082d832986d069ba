//! The lock of the reserve: a spin lock that masks interrupts by the kernel's functions.

use core::hint;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

use spin::Mutex;

use crate::error::Failure;

/// Masks interrupts on the calling vCPU, and returns what restores their state.
pub type Mask = unsafe extern "C" fn() -> u64;
/// Restores the state that [`Mask`] returned.
pub type Restore = unsafe extern "C" fn(u64);

/// The functions of the allocators that exist. A lock is made by a constant, so it cannot have them itself. They
/// change only while no allocator exists, and so between two uses of any lock.
static MASK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static RESTORE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The number of allocators that exist.
static USERS: Mutex<u64> = Mutex::new(0);

/// The use of the mask functions by an allocator. Without a user, the next allocator chooses them.
pub struct MaskShare(());

impl MaskShare {
    /// Sets the functions by which all locks mask interrupts, or joins the allocators that have set the same.
    ///
    /// # Errors
    /// One of the two is missing, or another allocator has others.
    pub fn join(mask: Option<Mask>, restore: Option<Restore>) -> Result<Self, Failure> {
        let null = core::ptr::null_mut();
        let (mask, restore) = match (mask, restore) {
            (None, None) => (null, null),
            (Some(mask), Some(restore)) => (mask as *mut (), restore as *mut ()),
            _ => return Err(Failure::HalfOfPair { first: "mask", second: "unmask" }),
        };
        let mut users = USERS.lock();
        if *users == 0 {
            MASK.store(mask, Release);
            RESTORE.store(restore, Release);
        } else if (MASK.load(Acquire), RESTORE.load(Acquire)) != (mask, restore) {
            return Err(Failure::OtherMask);
        }
        *users += 1;
        Ok(Self(()))
    }
}

impl Drop for MaskShare {
    fn drop(&mut self) {
        *USERS.lock() -= 1;
    }
}

fn mask() -> u64 {
    let function = MASK.load(Acquire);
    if function.is_null() {
        return 0;
    }
    // SAFETY: only `MaskShare::join` stores here, and it stores a `Mask`.
    let function = unsafe { core::mem::transmute::<*mut (), Mask>(function) };
    // SAFETY: the kernel's function may be called at any time: the header requires it.
    unsafe { function() }
}

fn restore(state: u64) {
    let function = RESTORE.load(Acquire);
    if function.is_null() {
        return;
    }
    // SAFETY: only `MaskShare::join` stores here, and it stores a `Restore`.
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
