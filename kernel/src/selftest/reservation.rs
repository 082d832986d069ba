//! Skips a test that returns frames to Xen and wants them back, where Xen would not return them.

use xen_contig::reservation::Reservation;

use super::{Check, fail, skip};
use crate::vcpu::xen;

/// Returns normally if the domain can get back the frames that it returns to Xen.
pub fn can_refill() -> Check {
    match Reservation::read(xen()) {
        Ok(reservation) if reservation.allows_refill() => Ok(()),
        Ok(reservation) => skip!("the domain has {reservation}"),
        Err(errno) => fail!("Xen does not report the reservation: {errno}"),
    }
}
