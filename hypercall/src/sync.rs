//! The lock of what several vCPUs use: `spin`'s, or `loom`'s in a build with `--cfg loom`.
//!
//! Such a build is no kernel's: it lets a test try every order in which threads can get on.

#[cfg(not(loom))]
pub use spin::{Mutex, MutexGuard};

#[cfg(loom)]
pub use explored::{Mutex, MutexGuard};

/// `spin`'s interface on `loom`'s lock.
#[cfg(loom)]
mod explored {
    use core::cell::{OnceCell, UnsafeCell};
    use core::fmt;
    use core::ops::{Deref, DerefMut};

    /// A lock whose every use `loom` tries in every order.
    pub struct Mutex<T> {
        /// Made when it is used first: `loom`'s can't be made in a constant.
        lock: OnceCell<loom::sync::Mutex<()>>,
        value: UnsafeCell<T>,
    }

    // SAFETY: `value` is reached through a guard only. `lock` is made without a switch of threads,
    // which loom runs one at a time.
    unsafe impl<T: Send> Sync for Mutex<T> {}

    /// Access to what is locked, until it is dropped.
    pub struct MutexGuard<'m, T> {
        value: &'m UnsafeCell<T>,
        _held: loom::sync::MutexGuard<'m, ()>,
    }

    impl<T> Mutex<T> {
        /// An open lock.
        pub const fn new(value: T) -> Self {
            Self { lock: OnceCell::new(), value: UnsafeCell::new(value) }
        }

        fn lock_itself(&self) -> &loom::sync::Mutex<()> {
            self.lock.get_or_init(|| loom::sync::Mutex::new(()))
        }

        /// Waits for the lock.
        ///
        /// # Panics
        /// If its holder has panicked.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            let held = self.lock_itself().lock().expect("a holder that did not panic");
            MutexGuard { value: &self.value, _held: held }
        }

        /// Takes the lock if nobody has it.
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
            // SAFETY: the lock is held.
            unsafe { &*self.value.get() }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            // SAFETY: the lock is held, and nobody else borrows its guard.
            unsafe { &mut *self.value.get() }
        }
    }
}
