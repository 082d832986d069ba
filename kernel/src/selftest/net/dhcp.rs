//! Does the card get an address from the network?

use super::start;
use crate::drivers::e1000::E1000_CARD;
use crate::drivers::memory::Wide;
use crate::say;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::{find, is_balanced};
use crate::selftest::{Check, TestContext};

/// Gets a lease, by the mask of a card that drives all address bits.
pub fn dhcp(context: &TestContext<'_>) -> Check {
    let device = find(context, E1000_CARD)?;
    let tally = DriverTally::start("e1000");
    let mut stack = start::<Wide>(context, device)?;
    let lease = stack.lease()?;
    tally.moved(stack.card().bytes() as usize);
    tally.finish()?;
    let mac = smoltcp::wire::EthernetAddress(stack.card().mac());
    say!(
        "# e1000-dhcp: {}, {mac}, got {}, gateway {}",
        stack.card().device(),
        lease.address,
        lease.gateway
    );
    drop(stack);
    is_balanced()
}
