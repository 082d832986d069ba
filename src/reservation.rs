//! How many frames a domain has, and how many it may have.

use core::fmt;

use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen, XenErrno};

/// The number of frames that Xen counts for this domain, and the most that it may have.
///
/// The toolstack sets the maximum when it creates the domain, and again by `xl mem-set`. A domain above
/// its maximum keeps its frames, but it gets no new ones: a frame that it returns is lost to it. So read
/// the reservation before a refill, and make none unless [`allows_refill`](Self::allows_refill).
///
/// ```
/// use hypercall::{Xen, XenErrno};
/// use xen_contig::reservation::Reservation;
///
/// fn may_refill(xen: &impl Xen) -> Result<bool, XenErrno> {
///     Ok(Reservation::read(xen)?.allows_refill())
/// }
/// # let guest = fake_xen::GuestBuilder::new(64).translated().build();
/// # assert_eq!(may_refill(guest.xen()), Ok(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    current: u64,
    maximum: u64,
}

impl Reservation {
    /// Asks Xen for both numbers. Makes two hypercalls, which change nothing.
    ///
    /// It takes no lock and does not sleep, so it may run in an interrupt handler. The toolstack can change the maximum at
    /// any time, so the answer may be old when it arrives.
    ///
    /// # Errors
    /// Xen's answer, if Xen refuses either number.
    pub fn read(xen: &impl Xen) -> Result<Self, XenErrno> {
        // SAFETY: both operations only return a number.
        unsafe {
            Ok(Self {
                current: xen.memory_op(MemoryOp::CurrentReservation(DomId::SELF))?,
                maximum: xen.memory_op(MemoryOp::MaximumReservation(DomId::SELF))?,
            })
        }
    }

    /// Returns the number of frames that the domain has.
    pub const fn current(&self) -> u64 {
        self.current
    }

    /// Returns the most frames that the domain may have.
    pub const fn maximum(&self) -> u64 {
        self.maximum
    }

    /// Returns true if the domain can get back as many frames as it returns to Xen.
    pub const fn allows_refill(&self) -> bool {
        self.current <= self.maximum
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { current, maximum } = self;
        write!(f, "{current} frames, at most {maximum}")?;
        if !self.allows_refill() {
            write!(
                f,
                ": {} too many, so Xen replaces none that the domain returns; `xl mem-set` raises the \
                 maximum",
                current - maximum
            )?;
        }
        Ok(())
    }
}
