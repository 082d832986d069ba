//! The lock of data that several vCPUs use: `spin`'s, or `loom`'s in a build with `--cfg loom`.
//!
//! A build with `--cfg loom` is only for tests, which then run every order of their threads' steps.

#[cfg(not(loom))]
pub use spin::{Mutex, MutexGuard};

#[cfg(loom)]
pub use explored::{Mutex, MutexGuard};

/// The interface of `spin` on the lock of `loom`.
#[cfg(loom)]
mod explored {
    use core::cell::{OnceCell, UnsafeCell};
    use core::fmt;
    use core::ops::{Deref, DerefMut};

    /// A lock that `loom` takes in every possible order.
    pub struct Mutex<T> {
        /// Made at its first use, because a constant cannot make a lock of `loom`.
        lock: OnceCell<loom::sync::Mutex<()>>,
        value: UnsafeCell<T>,
    }

    // SAFETY: only a guard gives access to `value`. loom runs one thread at a time and does not switch
    // threads while `lock` is made.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    /// Access to the locked value, until it is dropped.
    pub struct MutexGuard<'m, T> {
        value: &'m UnsafeCell<T>,
        _held: loom::sync::MutexGuard<'m, ()>,
    }

    impl<T> Mutex<T> {
        /// Makes an open lock.
        pub const fn new(value: T) -> Self {
            Self { lock: OnceCell::new(), value: UnsafeCell::new(value) }
        }

        fn lock_itself(&self) -> &loom::sync::Mutex<()> {
            self.lock.get_or_init(|| loom::sync::Mutex::new(()))
        }

        /// Waits for the lock.
        ///
        /// # Panics
        /// If the thread that held the lock has panicked.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            let held = self.lock_itself().lock().expect("a holder that did not panic");
            MutexGuard { value: &self.value, _held: held }
        }

        /// Takes the lock if it is open.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let held = self.lock_itself().try_lock().ok()?;
            Some(MutexGuard { value: &self.value, _held: held })
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Mutex")
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            // SAFETY: the guard holds the lock, so no other thread uses the value.
            unsafe { &*self.value.get() }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the guard holds the lock and is borrowed exclusively.
            unsafe { &mut *self.value.get() }
        }
    }
}
