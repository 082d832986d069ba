//! Arms the fault of a sweep in the model.

use fake_xen::{FakeGuest, Fault};

use crate::faults::InjectedFault;

/// Arms a fault. The next call is call 1.
pub fn arm(fault: &InjectedFault, guest: &FakeGuest) {
    match fault {
        InjectedFault::Call { call, errno, after } => {
            // The operations of a translated guest return a count. If one of them returns an error, Xen
            // did none of its extents.
            let after = if guest.p2m().is_translated() { 0 } else { *after };
            guest.xen().arm(Fault::refuse(*call, *errno).after(after));
        }
        InjectedFault::Stop { call, after } => guest.xen().arm(Fault::stop(*call).after(*after)),
        InjectedFault::Inside(fault) => guest.xen().arm_exchange(fault.clone()),
    }
}
