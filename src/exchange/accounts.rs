//! How many frames the guest has lost, and whether Xen exchanges memory of a translated guest.

use core::sync::atomic::Ordering::Relaxed;

use super::permission::{Permission, Trial};
use crate::sync::{AtomicU64, const_fn};

/// Counts the frames in quarantine ([M1](crate::rules#M1), [M6](crate::rules#M6)).
///
/// A frame is quarantined if its machine frame is unknown, or if Xen refuses to map that machine frame.
/// It is never used again.
///
/// In a translated guest it also remembers whether Xen exchanges the guest's memory.
#[derive(Debug, Default)]
pub struct Accounts {
    quarantined: AtomicU64,
    forgotten: AtomicU64,
    trial: Trial,
}

impl Accounts {
    const_fn! {
        /// Returns accounts with no frame in quarantine.
        pub const fn new() -> Self {
            Self {
                quarantined: AtomicU64::new(0),
                forgotten: AtomicU64::new(0),
                trial: Trial::new(),
            }
        }
    }

    /// Returns the number of frames in quarantine.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    /// Returns the number of frames that forgotten objects of dropped pools keep.
    ///
    /// A device may still have the address of such an object, so its chunk is not released.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Returns whether Xen exchanges memory of this translated guest; `None` before the first refill,
    /// which tries it with one frame.
    ///
    /// No released Xen does ([C26](crate::conformance#C26)). If the answer is unknown, refills take the
    /// same way as if it were no.
    pub fn translated_exchange(&self) -> Option<Permission> {
        self.trial.answer()
    }

    pub(super) const fn trial(&self) -> &Trial {
        &self.trial
    }

    pub(crate) fn forget(&self, frames: u64) {
        self.forgotten.fetch_add(frames, Relaxed);
    }

    pub(super) fn quarantine(&self, frames: u64) {
        self.quarantined.fetch_add(frames, Relaxed);
    }
}

/// Quarantines a run if a panic unwinds through its exchange or refill: what backs its frames may be
/// unknown then, and they have no owner.
pub(super) struct UnwindGuard<'a> {
    accounts: &'a Accounts,
    frames: u64,
}

impl<'a> UnwindGuard<'a> {
    /// Guards a run of `frames` frames.
    pub const fn new(accounts: &'a Accounts, frames: u64) -> Self {
        Self { accounts, frames }
    }

    /// Ends the guard: from here on the frames have an owner again, or are counted as lost.
    pub fn disarm(self) {
        core::mem::forget(self);
    }
}

impl Drop for UnwindGuard<'_> {
    fn drop(&mut self) {
        self.accounts.quarantine(self.frames);
    }
}
