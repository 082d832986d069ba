//! The check that Xen would populate frames that a test returns.

use alloc::format;
use alloc::string::String;

use xen_contig::reservation::Reservation;

use super::{Check, fail, skip};
use crate::vcpu::xen;

/// Skips the test unless the domain can populate the frames that it returns to Xen.
pub fn can_refill() -> Check {
    match Reservation::read(xen()) {
        Ok(reservation) if reservation.allows_refill() => Ok(()),
        Ok(reservation) => skip!("Xen may not return memory to a domain with {reservation}"),
        Err(errno) => fail!("Xen does not report the reservation: {errno}"),
    }
}

/// Returns the reason if the domain has more frames than it may have, so that frames which it
/// returned to Xen do not come back.
pub fn reduced() -> Option<String> {
    match Reservation::read(xen()) {
        Ok(reservation) if !reservation.allows_refill() => {
            Some(format!("the domain was reduced while the test ran: it has {reservation}"))
        }
        _ => None,
    }
}
