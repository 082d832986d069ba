//! Arming of faults, for sweeps whose scene has no steps for it.

use fake_xen::{FakeGuest, Fault};

use crate::faults::Wrong;

/// Arms a fault.
pub fn arm(wrong: &Wrong, guest: &FakeGuest) {
    match wrong {
        Wrong::Call { call, errno, after } => {
            // Where Xen would answer a count, a call that fails is done in no part.
            let after = if guest.p2m().is_translated() { 0 } else { *after };
            guest.xen().arm(Fault::refuse(*call, *errno).after(after));
        }
        Wrong::Stop { call, after } => guest.xen().arm(Fault::stop(*call).after(*after)),
        Wrong::Inside(fault) => guest.xen().arm_exchange(fault.clone()),
    }
}
