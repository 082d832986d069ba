//! Are 16 MiB transferred in both directions, with the right checksum?
//!
//! The guest sends 16 MiB of which word `i` is `seed + i` (64 bits, the lowest byte first), then their CRC-32
//! (32 bits, the lowest byte first). The server answers with the complement of each word, and the CRC-32 of
//! that.

use alloc::vec;
use alloc::vec::Vec;

use crc32fast::Hasher;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use super::stack::{NetworkStack, Wait};
use super::start;
use crate::drivers::e1000::E1000_CARD;
use crate::drivers::memory::Narrow;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::{find, is_balanced, nothing_in_reach, original_byte};
use crate::selftest::{Check, TestContext, fail, skip};

/// The number of bytes in each direction, without the checksum.
const BYTES: usize = 16 << 20;

/// The number of bytes of a checksum.
const CHECKSUM: usize = 4;

/// The size of each buffer of the connection.
const WINDOW: usize = 128 << 10;

/// Transfers the data, by the narrow mask.
pub fn tcp(context: &TestContext<'_>) -> Check {
    let device = find(context, E1000_CARD)?;
    let Some(server) = context.server else {
        skip!("no TCP server; name one that has this test's data by server=<IPv4 address>:<port>")
    };
    nothing_in_reach(context.machine)?;
    let tally = DriverTally::start("e1000");
    let mut stack = start::<Narrow>(context, device)?;
    stack.lease()?;
    let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
    let handle = stack.sockets().add(tcp::Socket::new(buffer(), buffer()));
    let (interface, sockets) = stack.parts();
    let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
    // The port is new in each boot, so that the network does not take it for an earlier connection.
    let local = 49152 + (context.seed % 16384) as u16;
    let remote = IpEndpoint::new((*server.ip()).into(), server.port());
    if let Err(why) = socket.connect(interface.context(), remote, local) {
        fail!("connecting to {server}: {why:?}");
    }
    let connection = Connection { handle, server };
    connection.send(context.seed, &mut stack)?;
    connection.receive(context.seed, &mut stack)?;
    tally.moved(stack.card().bytes() as usize);
    drop(stack);
    tally.finish()?;
    is_balanced()
}

struct Connection {
    handle: SocketHandle,
    server: core::net::SocketAddrV4,
}

impl Connection {
    fn send(&self, seed: u64, stack: &mut NetworkStack) -> Check {
        let mut sum = Hasher::new();
        let (mut sent, mut chunk) = (0, Vec::new());
        stack.until("sending", |stack| {
            let socket = stack.sockets().get_mut::<tcp::Socket<'_>>(self.handle);
            if sent == BYTES + CHECKSUM {
                return Ok(Wait::Done(()));
            }
            if !socket.may_send() && socket.state() != tcp::State::SynSent {
                fail!("{} closed the connection after {sent} bytes", self.server);
            }
            if !socket.can_send() {
                return Ok(Wait::More);
            }
            if chunk.is_empty() {
                let end = (sent + WINDOW / 4).min(BYTES);
                chunk = (sent..end).map(|at| original_byte(seed, at)).collect();
                sum.update(&chunk);
                if end == sent {
                    let whole = sum.clone().finalize().to_le_bytes();
                    chunk = whole[sent - BYTES..].to_vec();
                }
            }
            match socket.send_slice(&chunk) {
                Ok(count) => {
                    chunk.drain(..count);
                    sent += count;
                    Ok(if count > 0 { Wait::Progress } else { Wait::More })
                }
                Err(why) => fail!("sending after {sent} bytes: {why:?}"),
            }
        })
    }

    fn receive(&self, seed: u64, stack: &mut NetworkStack) -> Check {
        let mut sum = Hasher::new();
        let (mut received, mut last) = (0, Vec::new());
        stack.until("receiving", |stack| {
            if last.len() == CHECKSUM {
                return Ok(Wait::Done(()));
            }
            let socket = stack.sockets().get_mut::<tcp::Socket<'_>>(self.handle);
            if !socket.may_recv() && !socket.can_recv() {
                fail!("{} closed the connection after {received} bytes", self.server);
            }
            let mut fault = None;
            let count = socket.recv(|bytes| {
                let (data, rest) = bytes.split_at(bytes.len().min(BYTES - received));
                let wrong = |at: &usize| data[*at] != !original_byte(seed, received + at);
                fault = (0..data.len()).find(wrong).map(|at| (received + at, data[at]));
                sum.update(data);
                last.extend_from_slice(&rest[..rest.len().min(CHECKSUM - last.len())]);
                (bytes.len(), data.len() + rest.len())
            });
            if let Some((at, found)) = fault {
                let expected = !original_byte(seed, at);
                fail!("byte {at} that arrived is {found:#04x}, expected {expected:#04x}");
            }
            match count {
                Ok(0) => Ok(Wait::More),
                Ok(count) => {
                    received = (received + count).min(BYTES);
                    Ok(Wait::Progress)
                }
                Err(why) => fail!("receiving after {received} bytes: {why:?}"),
            }
        })?;
        is_sum(&last, sum.finalize())
    }
}

fn is_sum(last: &[u8], computed: u32) -> Check {
    if last != computed.to_le_bytes() {
        fail!("the checksum that arrived is {last:02x?}, but that of the data is {computed:#010x}");
    }
    Ok(())
}
