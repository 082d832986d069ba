//! Can the driver of the crate `eth-intel` move packets between a network card and exchanged memory, through
//! the adapter's `DmaOp`, below the network stack of the crate `smoltcp`?
//!
//! The card is QEMU's e1000, on QEMU's user network. In PV it uses machine addresses, in PVH guest addresses,
//! which the IOMMU translates. The test bed is the TCP server that the command line names.
//!
//! | file | question |
//! |---|---|
//! | [`dhcp`] | does the card get an address from the network? |
//! | [`ping`] | does the gateway return packets of every size? |
//! | [`tcp`] | are 16 MiB transferred in both directions, with the right checksum? |
//! | [`failed_start`] | does the card stop before memory is freed, if its driver does not start? |
//! | [`stack`] | the network stack, which waits for the card until a time limit |

mod dhcp;
mod failed_start;
mod ping;
mod stack;
mod tcp;

use alloc::format;
use alloc::vec::Vec;

use xen_contig::adapters::virtio_drivers::StaticDevice;

use self::stack::NetworkStack;
use super::drivers::{examine, watch, watched_dma};
use super::{Check, Test, TestContext, TestOutcome};
use crate::command_line::When;
use crate::drivers::DeviceFunction;
use crate::drivers::e1000::NetworkCard;
use crate::drivers::memory::Kernel;

pub fn add(tests: &mut Vec<Test>) {
    // They are not run by default, because they need a network.
    let mut asked = |name, run| tests.push(Test::new(name, run).when(When::Asked));
    asked("e1000-dhcp", dhcp::dhcp as fn(&TestContext<'_>) -> Check);
    asked("e1000-failed-start", failed_start::failed_start);
    asked("e1000-ping", ping::ping);
    asked("e1000-tcp", tcp::tcp);
}

/// Starts the card with the memory of `S`, checks all of that, and starts the stack on the card.
fn start<S: StaticDevice<Platform = Kernel> + 'static>(
    context: &TestContext<'_>,
    device: DeviceFunction,
) -> Result<NetworkStack, TestOutcome> {
    let card = NetworkCard::start(device, &watched_dma::device_dma::<S>());
    let card = card.map_err(|why| TestOutcome::Fail(format!("{why}")))?;
    for one in watch::take() {
        examine(context.machine, &one)?;
    }
    Ok(NetworkStack::new(card, context.seed))
}
