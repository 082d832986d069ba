//! The atomics and locks of this crate: `core`'s and `spin`'s, or `loom`'s in a build with
//! `--cfg loom`.
//!
//! Such a build is no kernel's: it lets `tests/loom` try every order in which threads can get on, and
//! every value that the memory model lets them see. Public because an embedder's P2M is made of them.

pub use hypercall::sync::{Mutex, MutexGuard};

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, fence};
#[cfg(not(loom))]
pub use spin::Once;

#[cfg(loom)]
pub use explored::Once;
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, fence};

/// A `const fn` that makes atomics. `loom`'s can't be made in a constant, so there it is a plain one.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis const fn $name:ident() -> $made:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$attribute])*
        $visibility const fn $name() -> $made $body

        #[cfg(loom)]
        $(#[$attribute])*
        $visibility fn $name() -> $made $body
    };
}
pub(crate) use const_fn;

/// `spin`'s interface on `loom`'s atomics.
#[cfg(loom)]
mod explored {
    use core::cell::OnceCell;
    use core::fmt;
    use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

    use loom::cell::UnsafeCell;

    use super::AtomicU8;

    const EMPTY: u8 = 0;
    const FILLING: u8 = 1;
    const FULL: u8 = 2;

    /// A place that is filled once. `loom` sees to it that nobody looks before it is published.
    pub struct Once<T> {
        state: AtomicU8,
        value: OnceCell<UnsafeCell<T>>,
    }

    // SAFETY: `value` is written by whoever moved `state` to `FILLING` and read behind `FULL`.
    unsafe impl<T: Send + Sync> Sync for Once<T> {}

    impl<T> Once<T> {
        /// An empty place.
        #[expect(clippy::new_without_default, reason = "spin's has none that is used")]
        pub fn new() -> Self {
            Self { state: AtomicU8::new(EMPTY), value: OnceCell::new() }
        }

        /// What is there, if it is complete.
        pub fn get(&self) -> Option<&T> {
            if self.state.load(Acquire) != FULL {
                return None;
            }
            // SAFETY: nobody writes to it once it is published; loom checks that it was before.
            self.value.get().map(|value| value.with(|value| unsafe { &*value }))
        }

        /// Fills the place, unless it is filled.
        ///
        /// # Panics
        /// If someone else is just filling it, for whom `spin`'s would wait.
        pub fn call_once(&self, make: impl FnOnce() -> T) -> &T {
            match self.state.compare_exchange(EMPTY, FILLING, AcqRel, Acquire) {
                Ok(_) => {
                    let _was_empty = self.value.set(UnsafeCell::new(make()));
                    self.state.store(FULL, Release);
                }
                Err(state) => assert_eq!(state, FULL, "two fill one place"),
            }
            self.get().expect("just filled")
        }
    }

    impl<T> fmt::Debug for Once<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Once")
        }
    }
}
