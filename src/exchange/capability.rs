//! Which contiguous memory this domain can get, and why.

use core::fmt;

use hypercall::Xen;

use super::error::ExchangeError;
use super::permission::order_limit;
use crate::addr::Order;
use crate::p2m::P2m;

/// Which contiguous memory this domain can get.
///
/// It follows from the kind of guest and from the order limit. A trial exchange of no frames would
/// not tell, because it succeeds in every guest ([C09](crate::conformance#C09)). Whether a refill
/// exchanges is found by the first one ([`Accounts::translated_exchange`]).
///
/// [`Accounts::translated_exchange`]: super::Accounts::translated_exchange
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// PV: extents up to this order, their machine frames known.
    Exchange {
        /// The highest order that Xen permits.
        limit: Order,
    },
    /// PVH: extents up to this order that back a run, their machine frames hidden by Xen.
    Refill {
        /// The highest order that Xen permits.
        limit: Order,
    },
    /// This domain can get no contiguous memory.
    None {
        /// The cause.
        why: ExchangeError,
    },
}

impl Capability {
    /// Asks Xen for the order limit. Makes at most 20 hypercalls, which move nothing.
    ///
    /// It takes no lock and does not sleep. A running Xen does not change the limit, but after a migration
    /// it is that of another Xen.
    pub fn ask(xen: &impl Xen, p2m: &P2m<'_>) -> Self {
        match order_limit(xen) {
            Err(why) => Self::None { why },
            Ok(limit) if p2m.is_translated() => Self::Refill { limit },
            Ok(limit) => Self::Exchange { limit },
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { limit } => write!(
                f,
                "exchange up to order {limit} ({} KiB): PV guest, machine frames visible",
                limit.bytes() >> 10
            ),
            Self::Refill { limit } => write!(
                f,
                "refill up to order {limit} ({} KiB): translated guest, machine frames hidden by Xen, \
                 devices see guest frames",
                limit.bytes() >> 10
            ),
            Self::None { why } => write!(f, "no contiguous memory: {why}"),
        }
    }
}
