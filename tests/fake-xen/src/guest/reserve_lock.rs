//! The lock of the reserve.

#![expect(unsafe_code, reason = "the trait is unsafe to implement")]

use std::cell::Cell;

use lock_api::{GuardNoSend, RawMutex};

thread_local! {
    /// The number of such locks that the thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A spin lock that the model watches: a thread that holds it makes no hypercall and calls no method of
/// its platform.
#[derive(Debug)]
pub struct ReserveLock(spin::Mutex<()>);

// SAFETY: the lock is that of `spin`, taken and released with this one.
unsafe impl RawMutex for ReserveLock {
    const INIT: Self = Self(spin::Mutex::new(()));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        RawMutex::lock(&self.0);
        HELD.set(HELD.get() + 1);
    }

    fn try_lock(&self) -> bool {
        let taken = RawMutex::try_lock(&self.0);
        HELD.set(HELD.get() + u32::from(taken));
        taken
    }

    unsafe fn unlock(&self) {
        HELD.set(HELD.get() - 1);
        // SAFETY: the thread holds the lock: the function's requirement.
        unsafe { RawMutex::unlock(&self.0) };
    }
}

/// Stops the test if the thread holds the lock of a reserve.
pub(crate) fn check_not_held(what: &str) {
    if HELD.get() > 0 && !std::thread::panicking() {
        panic!("the model's rules were broken: {what} under the lock of the reserve");
    }
}
