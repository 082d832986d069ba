//! The messages of a connection to xenstored: a request, and the answer with its number. The host tests compile
//! this file too.
//!
//! A request that xenstored does not answer in time may be answered later. Each request has its own number, so
//! such an answer is recognised and discarded, as `process_msg` in Linux's `xenbus_comms.c` does. A message of
//! which a part was sent or received is completed before the next one.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use arrayvec::ArrayString;
use hypercall::abi::xenstore::{Header, XS_ERROR};

use super::error::{MAX_PAYLOAD, StoreError};
use super::ring::{RingPair, TIMEOUT_SECONDS};
use crate::time::Deadline;

/// The number of words of 32 bits in a header.
const HEADER_WORDS: usize = size_of::<Header>() / 4;

/// The state of the messages with xenstored.
pub struct Stream {
    /// The number of the last request.
    last_request: u32,
    /// The rest of a request that xenstored did not read in time.
    unsent: VecDeque<u8>,
    /// The first part of an answer that xenstored did not complete in time.
    received: Vec<u8>,
    /// The error after which the start of the next message is unknown.
    unusable: Option<StoreError>,
}

impl Stream {
    /// Returns the state before the first request.
    pub const fn new() -> Self {
        Self {
            // It does not start at 0, so that a cleared field is noticed.
            last_request: 0x7863_0000,
            unsent: VecDeque::new(),
            received: Vec::new(),
            unusable: None,
        }
    }

    /// Sends a request and returns the contents of its answer.
    ///
    /// # Errors
    /// The request is too long, or xenstored refused it or did not answer it.
    pub fn ask(
        &mut self,
        rings: &mut RingPair,
        kind: u32,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, StoreError> {
        if let Some(error) = self.unusable {
            return Err(error);
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        if bytes > MAX_PAYLOAD {
            return Err(StoreError::TooLong { bytes });
        }
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        self.send(rings, deadline)?;
        self.last_request = self.last_request.wrapping_add(1);
        let asked = self.last_request;
        for word in [kind, asked, 0, bytes as u32] {
            self.unsent.extend(word.to_le_bytes());
        }
        self.unsent.extend(parts.iter().copied().flatten());
        self.send(rings, deadline)?;
        rings.notify()?;
        loop {
            let (header, contents) = self.receive(rings, deadline)?;
            let Header { kind: answered, request, .. } = header;
            match answered {
                _ if request != asked => {
                    // Without this, other messages could keep the caller here forever.
                    if deadline.has_passed() {
                        return Err(StoreError::Silent);
                    }
                }
                _ if answered == kind => return Ok(contents),
                XS_ERROR => return Err(StoreError::Refused(word(&contents))),
                _ => return Err(StoreError::UnexpectedKind { asked: kind, answered, request }),
            }
        }
    }

    /// Sends what is unsent.
    fn send(&mut self, rings: &mut RingPair, deadline: Deadline) -> Result<(), StoreError> {
        while let Some(byte) = self.unsent.front() {
            rings.send(*byte, deadline)?;
            self.unsent.pop_front();
        }
        Ok(())
    }

    /// Receives the next message, of which a part may have arrived before.
    fn receive(
        &mut self,
        rings: &mut RingPair,
        deadline: Deadline,
    ) -> Result<(Header, Vec<u8>), StoreError> {
        loop {
            if let Some(header) = header(&self.received) {
                let Header { kind, request, len, .. } = header;
                // The length is checked before the contents are read, because a wrong length would make
                // this wait for bytes that never arrive.
                if len as usize > MAX_PAYLOAD {
                    let error = StoreError::EndlessMessage { kind, request, len };
                    self.unusable = Some(error);
                    return Err(error);
                }
                if self.received.len() == size_of::<Header>() + len as usize {
                    let contents = self.received.split_off(size_of::<Header>());
                    self.received.clear();
                    return Ok((header, contents));
                }
            }
            self.received.push(rings.receive(deadline)?);
        }
    }
}

/// Returns the header of a message, or `None` if it is not complete.
fn header(message: &[u8]) -> Option<Header> {
    let mut words = [0; HEADER_WORDS];
    for (word, bytes) in words.iter_mut().zip(message.get(..size_of::<Header>())?.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let [kind, request, transaction, len] = words;
    Some(Header { kind, request, transaction, len })
}

/// Returns the name of an error, as far as it fits.
fn word(contents: &[u8]) -> ArrayString<16> {
    let mut text = ArrayString::new();
    for byte in contents.iter().filter(|byte| byte.is_ascii_graphic()) {
        if !text.is_full() {
            text.push((*byte).into());
        }
    }
    text
}
