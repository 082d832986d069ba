//! The network stack, which waits for the card until a time limit.

use alloc::format;
use alloc::vec::Vec;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::drivers::e1000::NetworkCard;
use crate::selftest::{TestOutcome, fail};
use crate::time::{Deadline, Stopwatch};

/// The number of seconds of system time without progress after which a test gives up.
///
/// QEMU's network answers in milliseconds. A busy host may not run QEMU for seconds.
const LIMIT_SECONDS: u64 = 60;

/// The stack on a card.
pub struct NetworkStack {
    card: NetworkCard,
    interface: Interface,
    sockets: SocketSet<'static>,
    clock: Stopwatch,
}

/// The addresses that the network has assigned to the card.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// The card's own address, and the size of the network.
    pub address: Ipv4Cidr,
    /// The gateway.
    pub gateway: Ipv4Address,
}

impl NetworkStack {
    /// Returns the stack of a card. The seed chooses its ports and sequence numbers.
    pub fn new(mut card: NetworkCard, seed: u64) -> Self {
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = seed;
        let interface = Interface::new(config, &mut card, Instant::ZERO);
        Self { card, interface, sockets: SocketSet::new(Vec::new()), clock: Stopwatch::start() }
    }

    /// Returns the card.
    pub const fn card(&self) -> &NetworkCard {
        &self.card
    }

    /// Returns the sockets.
    pub const fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// Returns the interface and the sockets. A new connection needs both.
    pub const fn parts(&mut self) -> (&mut Interface, &mut SocketSet<'static>) {
        (&mut self.interface, &mut self.sockets)
    }

    /// Polls the card until `step` returns a value. A step that made progress returns `Wait::Progress`.
    ///
    /// # Errors
    /// There was no progress for some time.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut step: impl FnMut(&mut Self) -> Result<Wait<T>, TestOutcome>,
    ) -> Result<T, TestOutcome> {
        let mut deadline = Deadline::in_seconds(LIMIT_SECONDS);
        loop {
            let now = Instant::from_millis(self.clock.milliseconds() as i64);
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            match step(self)? {
                Wait::Done(value) => return Ok(value),
                Wait::Progress => deadline = Deadline::in_seconds(LIMIT_SECONDS),
                Wait::More if deadline.has_passed() => {
                    fail!("{what}: nothing happened for {LIMIT_SECONDS} s")
                }
                Wait::More => self.wait(deadline)?,
            }
        }
    }

    /// Waits for the card, but only until the stack has to be polled again.
    fn wait(&mut self, deadline: Deadline) -> Result<(), TestOutcome> {
        let now = Instant::from_millis(self.clock.milliseconds() as i64);
        let until = match self.interface.poll_delay(now, &self.sockets) {
            Some(delay) => deadline.min(Deadline::in_milliseconds(delay.total_millis())),
            None => deadline,
        };
        self.card.wait(until).map_err(|why| TestOutcome::Fail(format!("{why}")))
    }

    /// Gets an address from the network, and uses it.
    pub fn lease(&mut self) -> Result<Lease, TestOutcome> {
        let handle: SocketHandle = self.sockets.add(dhcpv4::Socket::new());
        let config = self.until("DHCP", |stack| {
            match stack.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
                Some(dhcpv4::Event::Configured(config)) => {
                    Ok(Wait::Done((config.address, config.router)))
                }
                _ => Ok(Wait::More),
            }
        });
        self.sockets.remove(handle);
        let (address, router) = config?;
        let Some(gateway) = router else { fail!("DHCP: {address} without a gateway") };
        let mut is_used = false;
        self.interface.update_ip_addrs(|all| is_used = all.push(IpCidr::Ipv4(address)).is_ok());
        let routed = self.interface.routes_mut().add_default_ipv4_route(gateway);
        if !is_used || routed.is_err() {
            fail!("DHCP: the stack has no room for {address} and the route to {gateway}");
        }
        Ok(Lease { address, gateway })
    }
}

/// The result of a step.
pub enum Wait<T> {
    /// The value that was waited for.
    Done(T),
    /// Something happened, so that waiting is worthwhile.
    Progress,
    /// Nothing happened.
    More,
}
