//! The atomics and locks of this crate.
//!
//! They are those of `core` and `spin`. A build with `--cfg loom` uses those of `loom`. Such a build is
//! only for `tests/loom`, which runs every order of the threads' steps. It also tries every value that
//! the memory model lets a thread read.
//!
//! The module is public because an embedder builds its P2M from these atomics.

pub use hypercall::sync::{Mutex, MutexGuard};

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, fence};
#[cfg(not(loom))]
pub use spin::Once;

#[cfg(loom)]
pub use explored::Once;
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, fence};

/// Defines a `const fn` that makes atomics.
///
/// A constant cannot contain an atomic of `loom`, so `--cfg loom` makes it a plain function.
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

/// The interface of `spin` on the atomics of `loom`.
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

    /// A cell that is filled once.
    ///
    /// `loom` checks that no thread reads it before it is filled.
    pub struct Once<T> {
        state: AtomicU8,
        value: OnceCell<UnsafeCell<T>>,
    }

    // SAFETY: only the thread that changed `state` from `EMPTY` to `FILLING` writes `value`, so writes do
    // not race. Other threads read it only after they have read `FULL` with acquire, so the write
    // happens before. `T: Send + Sync` lets them share the value.
    unsafe impl<T: Send + Sync> Sync for Once<T> {}

    impl<T> Once<T> {
        /// Makes an empty cell.
        #[expect(clippy::new_without_default, reason = "nothing uses the `Default` of `spin`")]
        pub fn new() -> Self {
            Self { state: AtomicU8::new(EMPTY), value: OnceCell::new() }
        }

        /// Returns the value, if the cell is full.
        pub fn get(&self) -> Option<&T> {
            if self.state.load(Acquire) != FULL {
                return None;
            }
            // SAFETY: `state` is `FULL`, so the one write to `value` has happened and no other follows.
            // A shared reference is therefore valid as long as `self`.
            self.value.get().map(|value| value.with(|value| unsafe { &*value }))
        }

        /// Fills the cell with the result of `make`, unless it is full. Returns the value.
        ///
        /// # Panics
        ///
        /// Panics if another thread is filling the cell. `spin` would wait for that thread.
        pub fn call_once(&self, make: impl FnOnce() -> T) -> &T {
            match self.state.compare_exchange(EMPTY, FILLING, AcqRel, Acquire) {
                Ok(_) => {
                    let _was_empty = self.value.set(UnsafeCell::new(make()));
                    self.state.store(FULL, Release);
                }
                Err(state) => assert_eq!(state, FULL, "two threads fill one cell"),
            }
            self.get().expect("the cell is full")
        }
    }

    impl<T> fmt::Debug for Once<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Once")
        }
    }
}
