//! The report of how many frames Xen counts for the domain.

use hypercall::XenErrno;
use xen_contig::reservation::Reservation;

use crate::console::say;
use crate::vcpu::xen;

/// The reservation of the domain at boot.
pub struct ReservationReport {
    /// The number of frames that were returned to Xen because it has no memory for them.
    unbacked: Result<u64, XenErrno>,
    /// The frames that Xen counts after that.
    reservation: Result<Reservation, XenErrno>,
}

impl ReservationReport {
    /// Reads the reservation.
    pub fn new(unbacked: Result<u64, XenErrno>) -> Self {
        Self { unbacked, reservation: Reservation::read(xen()) }
    }

    /// Prints the reservation.
    pub fn print(&self) {
        match &self.reservation {
            // Xen gives a domain without a limit the largest number (`max_pages` in
            // `common/domain.c`).
            Ok(it) if it.maximum() >= u64::from(u32::MAX) => {
                say!("# reservation: {} frames, no maximum", it.current());
            }
            Ok(reservation) => say!("# reservation: {reservation}"),
            Err(errno) => say!("# reservation: unknown, because Xen does not report it: {errno}"),
        }
        match self.unbacked {
            Ok(0) | Err(_) => {}
            Ok(frames) => say!(
                "# populate on demand: {frames} frames ({} MiB) of the memory map have no memory; they \
                 were returned to Xen",
                frames >> 8
            ),
        }
    }
}
