//! The TCP server with which the driver of a network card exchanges data.
//!
//! The client sends the words of a seed, 16 MiB, and their CRC-32. The server checks both, and answers with
//! the complement of each word and the CRC-32 of that. QEMU's user network leads the address 10.0.2.2 to this
//! host's own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crc32fast::Hasher;

use super::content::{content, difference};
use crate::error::{Error, Result};

/// The address at which a guest of QEMU's user network reaches this host.
pub const HOST: &str = "10.0.2.2";

/// The number of bytes in each direction, without the checksum.
const BYTES: usize = 16 << 20;

/// How long a system call waits. Between two calls the server may end.
const NAP: Duration = Duration::from_millis(50);

/// A server that listens, and that has not begun to answer.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    port: u16,
    seed: u64,
    /// Bytes in each direction, without the checksum.
    bytes: usize,
}

/// A server that answers.
#[derive(Debug)]
pub struct RunningServer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<std::result::Result<(), String>>>,
}

impl Server {
    /// Listens at a port of this host that is free, out of reach of other hosts.
    pub fn bind(seed: u64) -> Result<Self> {
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            Ok(Self { listener, port, seed, bytes: BYTES })
        };
        bind().map_err(|error: std::io::Error| Error::NoPort(error.to_string()))
    }

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Answers clients, one after the other, until it is stopped.
    pub fn run(self) -> RunningServer {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut results = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                match self.listener.accept() {
                    Ok((client, _)) => results.push(serve(client, &self, &seen)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NAP),
                    Err(error) => results.push(Err(format!("accepting a client: {error}"))),
                }
            }
            results
        });
        RunningServer { stop, thread }
    }
}

impl RunningServer {
    /// Ends the server. Returns whether a client came, and whether all clients sent the right data.
    pub fn finish(self) -> std::result::Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let results = self.thread.join().map_err(|_| "the server panicked".to_owned())?;
        if results.is_empty() {
            return Err("no client connected".to_owned());
        }
        results.into_iter().collect()
    }
}

/// Receives the client's data and answers.
fn serve(client: TcpStream, server: &Server, stop: &AtomicBool) -> std::result::Result<(), String> {
    let Server { seed, bytes, .. } = *server;
    let ready = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(Some(NAP)))
        .and_then(|()| client.set_write_timeout(Some(NAP)));
    ready.map_err(|error| format!("a client: {error}"))?;
    let mut client = Patient { client, stop };
    let expected = with_sum(words(seed, bytes, 0));
    let mut found = vec![0; expected.len()];
    client.read(&mut found)?;
    if let Some((at, what)) = difference(&found, &expected) {
        let part = if at < bytes { "" } else { ", of the checksum," };
        return Err(format!("byte {at}{part} {what}"));
    }
    client.write(&with_sum(words(seed, bytes, u64::MAX)))
}

/// Returns data of which word `i` is `seed + i`, with the bits of `flip` changed.
fn words(seed: u64, bytes: usize, flip: u64) -> Vec<u8> {
    content(bytes / 8, seed, |_, word| word ^ flip)
}

/// Appends the checksum to data.
fn with_sum(mut data: Vec<u8>) -> Vec<u8> {
    let mut sum = Hasher::new();
    sum.update(&data);
    data.extend(sum.finalize().to_le_bytes());
    data
}

/// A client that is waited for until the server is stopped.
struct Patient<'s> {
    client: TcpStream,
    stop: &'s AtomicBool,
}

impl Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::result::Result<(), String> {
        let all = into.len();
        self.repeat("received", all, |client, done| client.read(&mut into[done..]))
    }

    fn write(&mut self, from: &[u8]) -> std::result::Result<(), String> {
        self.repeat("sent", from.len(), |client, done| client.write(&from[done..]))
    }

    fn repeat(
        &mut self,
        what: &str,
        all: usize,
        mut step: impl FnMut(&mut TcpStream, usize) -> std::io::Result<usize>,
    ) -> std::result::Result<(), String> {
        let mut done = 0;
        while done < all {
            match step(&mut self.client, done) {
                Ok(0) => return Err(format!("{done} of {all} bytes {what}, then the client left")),
                Ok(count) => done += count,
                Err(error) if is_early(&error) && !self.stop.load(Ordering::Relaxed) => {}
                Err(error) => return Err(format!("{done} of {all} bytes {what}: {error}")),
            }
        }
        Ok(())
    }
}

/// Returns true if a call failed because nothing happened in time.
fn is_early(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is transferred in these tests.
    const SMALL: usize = 64 << 10;

    /// Connects to a server, sends data, and returns what it answers and how it judges.
    fn judged(seed: u64, data: &[u8]) -> (Vec<u8>, std::result::Result<(), String>) {
        let server = Server { bytes: SMALL, ..Server::bind(seed).unwrap() };
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        let running = server.run();
        client.write_all(data).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The server may close the connection before it has read all.
        let _ = client.read_to_end(&mut answer);
        (answer, running.finish())
    }

    fn data(seed: u64) -> Vec<u8> {
        words(seed, SMALL, 0)
    }

    #[test]
    fn the_right_data_is_answered_by_its_complement() {
        let seed = u64::MAX - 3;
        let (answer, result) = judged(seed, &with_sum(data(seed)));
        assert_eq!(result, Ok(()));
        let complement: Vec<u8> = data(seed).iter().map(|byte| !byte).collect();
        assert!(answer == with_sum(complement));
    }

    #[test]
    fn wrong_data_a_wrong_checksum_and_silence_are_named() {
        let mut wrong = with_sum(data(1));
        wrong[5000] ^= 1;
        assert!(judged(1, &wrong).1.unwrap_err().starts_with("byte 5000 is"));
        let mut wrong = with_sum(data(1));
        wrong[SMALL + 1] ^= 1;
        let fault = judged(1, &wrong).1.unwrap_err();
        assert!(fault.starts_with("byte 65537, of the checksum, is"), "{fault}");
        let fault = judged(1, &wrong[..100]).1.unwrap_err();
        assert!(fault.starts_with("100 of 65540 bytes received"), "{fault}");
        assert_eq!(Server::bind(1).unwrap().run().finish(), Err("no client connected".to_owned()));
    }
}
