//! Does the gateway return packets of every size?

use alloc::vec;
use alloc::vec::Vec;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use super::stack::{NetworkStack, Wait};
use super::start;
use crate::drivers::e1000::E1000_CARD;
use crate::drivers::memory::{Narrow, Wide};
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::{find, is_balanced, nothing_in_reach};
use crate::selftest::{Check, TestContext, fail};

/// The numbers of bytes in a ping. The largest fills a packet.
const SIZES: [usize; 7] = [8, 0, 1, 56, 511, 1024, 1472];

/// The number that names these pings.
const IDENT: u16 = 0x22b;

/// Sends pings by both masks.
pub fn ping(context: &TestContext<'_>) -> Check {
    let device = find(context, E1000_CARD)?;
    nothing_in_reach(context.machine)?;
    let tally = DriverTally::start("e1000");
    let mut stack = start::<Narrow>(context, device)?;
    pings(context, &mut stack)?;
    tally.moved(stack.card().bytes() as usize);
    drop(stack);
    let mut stack = start::<Wide>(context, find(context, E1000_CARD)?)?;
    pings(context, &mut stack)?;
    tally.moved(stack.card().bytes() as usize);
    drop(stack);
    tally.finish()?;
    is_balanced()
}

fn pings(context: &TestContext<'_>, stack: &mut NetworkStack) -> Check {
    let lease = stack.lease()?;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    if let Err(why) = socket.bind(icmp::Endpoint::Ident(IDENT)) {
        fail!("the socket for pings: {why:?}");
    }
    let handle = stack.sockets().add(socket);
    for (number, size) in (0..).zip(SIZES) {
        let data: Vec<u8> = (0..size).map(|at| (context.seed as usize + at * 7) as u8).collect();
        one(stack, handle, lease.gateway.into(), number, &data)?;
    }
    Ok(())
}

/// Sends one ping and checks the answer.
fn one(
    stack: &mut NetworkStack,
    handle: SocketHandle,
    gateway: IpAddress,
    seq_no: u16,
    data: &[u8],
) -> Check {
    let socket = stack.sockets().get_mut::<icmp::Socket<'_>>(handle);
    let repr = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no, data };
    match socket.send(repr.buffer_len(), gateway) {
        Ok(payload) => {
            repr.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default())
        }
        Err(why) => fail!("a ping of {} bytes: {why:?}", data.len()),
    }
    let answer = stack.until("a ping", |stack| {
        let socket = stack.sockets().get_mut::<icmp::Socket<'_>>(handle);
        match socket.recv() {
            Ok((bytes, from)) => Ok(Wait::Done((bytes.to_vec(), from))),
            Err(_) => Ok(Wait::More),
        }
    })?;
    is_answer(&answer.0, answer.1, gateway, seq_no, data)
}

fn is_answer(bytes: &[u8], from: IpAddress, gateway: IpAddress, number: u16, sent: &[u8]) -> Check {
    let packet = Icmpv4Packet::new_checked(bytes);
    let repr = packet.and_then(|it| Icmpv4Repr::parse(&it, &ChecksumCapabilities::default()));
    match repr {
        Ok(Icmpv4Repr::EchoReply { ident: IDENT, seq_no, data })
            if seq_no == number && data == sent && from == gateway =>
        {
            Ok(())
        }
        other => fail!("ping {number} of {} bytes: {from} answers {other:x?}", sent.len()),
    }
}
