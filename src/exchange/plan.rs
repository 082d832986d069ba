//! What an exchange will ask for: pure, and refused before anything moves.

use super::ExchangeError;
use crate::addr::{AddressBits, Order};

/// An exchange that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The order of the one contiguous extent.
    pub order: Order,
    /// The address limit of the frames that come.
    pub bits: AddressBits,
}

impl Plan {
    /// Plans to make a run of `frames` contiguous below `2^bits`, where Xen permits extents up to
    /// `limit`.
    ///
    /// # Errors
    /// `BadSize` for what is no power of two up to order 18, `OrderNotPermitted` above the limit.
    pub const fn new(frames: u64, bits: AddressBits, limit: Order) -> Result<Self, ExchangeError> {
        if !frames.is_power_of_two() {
            return Err(ExchangeError::BadSize { frames });
        }
        let Ok(order) = Order::new(frames.ilog2()) else {
            return Err(ExchangeError::BadSize { frames });
        };
        if order.get() > limit.get() {
            return Err(ExchangeError::OrderNotPermitted { order });
        }
        Ok(Self { order, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_up_to_the_limit() {
        let nine = Order::new(9).unwrap();
        let plan = |frames, limit| Plan::new(frames, AddressBits::UNLIMITED, limit);
        assert_eq!(plan(1, nine).unwrap().order, Order::ZERO);
        assert_eq!(plan(512, nine).unwrap().order, nine);
        assert_eq!(plan(1 << 18, Order::MAX).unwrap().order, Order::MAX);
        for frames in [0, 3, 511, 513, 1 << 19, 1 << 63, u64::MAX] {
            assert_eq!(plan(frames, Order::MAX), Err(ExchangeError::BadSize { frames }));
        }
        let order = Order::new(10).unwrap();
        assert_eq!(plan(1024, nine), Err(ExchangeError::OrderNotPermitted { order }));
    }
}
