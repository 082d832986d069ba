//! The choice of hypercalls that a tracer records.

use core::fmt;

use super::{CallRecord, Hypercall};

/// The hypercalls that a tracer records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter(u64);

const _: () = assert!(Hypercall::COUNT < 64, "a filter has one bit for each hypercall");

impl Filter {
    /// All hypercalls.
    pub const ALL: Self = Self(u64::MAX);

    /// Returns true if it includes the call, or one of the calls of a multicall.
    pub(crate) fn admits(self, call: &CallRecord) -> bool {
        if self == Self::ALL || self.includes(call.hypercall()) {
            return true;
        }
        let CallRecord::Multicall(multicall) = call else { return false };
        multicall.hypercalls().any(|hypercall| self.includes(hypercall))
    }

    /// Returns true if it includes the hypercall.
    pub const fn includes(self, hypercall: Hypercall) -> bool {
        self.0 & 1 << hypercall as u64 != 0
    }
}

impl FromIterator<Hypercall> for Filter {
    fn from_iter<I: IntoIterator<Item = Hypercall>>(hypercalls: I) -> Self {
        Self(hypercalls.into_iter().fold(0, |bits, hypercall| bits | 1 << hypercall as u64))
    }
}

/// Prints `all`, or the names separated by commas.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("all");
        }
        let included = Hypercall::all().filter(|hypercall| self.includes(*hypercall));
        for (index, hypercall) in included.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", hypercall.name())?;
        }
        Ok(())
    }
}
