//! The parts of the kernel that speak with xenstored and need no Xen.

extern crate alloc;

/// The items of the kernel's module of this name that xenstore uses.
mod time {
    use std::cell::Cell;

    /// A time that passes with the thousandth question.
    #[derive(Clone, Copy)]
    pub struct Deadline(());

    thread_local!(static QUESTIONS: Cell<u32> = const { Cell::new(0) });

    impl Deadline {
        pub fn in_seconds(_: u64) -> Self {
            QUESTIONS.set(0);
            Self(())
        }

        pub fn has_passed(self) -> bool {
            QUESTIONS.set(QUESTIONS.get() + 1);
            QUESTIONS.get() >= 1000
        }
    }
}

#[path = "../kernel/src/xenstore/error.rs"]
#[expect(dead_code, reason = "`Store`, which needs Xen, returns the other errors")]
mod error;
#[path = "../kernel/src/xenstore/stream.rs"]
mod stream;

/// The kernel's module of this name, with rings of the test.
mod ring {
    use std::collections::VecDeque;

    use super::StoreError;
    use crate::time::Deadline;

    pub const TIMEOUT_SECONDS: u64 = 60;

    /// Two rings whose other end is the test.
    pub struct RingPair {
        /// The bytes that the kernel sent.
        pub sent: Vec<u8>,
        /// The number of bytes that the kernel can still send.
        pub room: usize,
        /// The bytes that the kernel will receive.
        pub answers: VecDeque<u8>,
        /// The bytes that follow again and again.
        pub repeated: Vec<u8>,
    }

    impl RingPair {
        pub fn send(&mut self, byte: u8, _: Deadline) -> Result<(), StoreError> {
            self.room = self.room.checked_sub(1).ok_or(StoreError::Silent)?;
            self.sent.push(byte);
            Ok(())
        }

        pub fn receive(&mut self, _: Deadline) -> Result<u8, StoreError> {
            if self.answers.is_empty() {
                self.answers.extend(&self.repeated);
            }
            self.answers.pop_front().ok_or(StoreError::Silent)
        }

        pub fn notify(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }
}

use error::StoreError;
use hypercall::abi::xenstore::{XS_ERROR, XS_READ, XS_WRITE};
use ring::RingPair;
use stream::Stream;

/// The number of the first request of a stream.
const FIRST: u32 = 0x7863_0001;

fn rings() -> RingPair {
    RingPair { sent: Vec::new(), room: usize::MAX, answers: [].into(), repeated: Vec::new() }
}

fn message(kind: u32, request: u32, contents: &[u8]) -> Vec<u8> {
    let words = [kind, request, 0, contents.len() as u32];
    words.iter().flat_map(|word| word.to_le_bytes()).chain(contents.iter().copied()).collect()
}

fn read(stream: &mut Stream, rings: &mut RingPair, path: &str) -> Result<String, StoreError> {
    let answer = stream.ask(rings, XS_READ, &[path.as_bytes(), &[0]])?;
    Ok(String::from_utf8(answer).unwrap())
}

#[test]
fn a_request_gets_its_answer() {
    let (mut stream, mut rings) = (Stream::new(), rings());
    rings.answers.extend(message(XS_READ, FIRST, b"one"));
    rings.answers.extend(message(XS_WRITE, FIRST + 1, b"OK\0"));
    rings.answers.extend(message(XS_ERROR, FIRST + 2, b"ENOENT\0"));
    assert_eq!(read(&mut stream, &mut rings, "a"), Ok("one".into()));
    assert_eq!(stream.ask(&mut rings, XS_WRITE, &[b"a", &[0], b"1"]), Ok(b"OK\0".into()));
    let refused = read(&mut stream, &mut rings, "b").unwrap_err();
    assert_eq!(refused.to_string(), "xenstored refused: ENOENT");
    let sent = [
        message(XS_READ, FIRST, b"a\0"),
        message(XS_WRITE, FIRST + 1, b"a\x001"),
        message(XS_READ, FIRST + 2, b"b\0"),
    ];
    assert_eq!(rings.sent, sent.concat());
}

#[test]
fn a_late_answer_is_discarded() {
    // xenstored stops after each number of bytes of the first answer, and completes it later.
    let first = message(XS_READ, FIRST, b"one");
    for arrived in 0..first.len() {
        let (mut stream, mut rings) = (Stream::new(), rings());
        rings.answers.extend(&first[..arrived]);
        assert_eq!(read(&mut stream, &mut rings, "a"), Err(StoreError::Silent));
        rings.answers.extend(&first[arrived..]);
        rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
        rings.answers.extend(message(XS_READ, FIRST + 2, b"three"));
        assert_eq!(read(&mut stream, &mut rings, "b"), Ok("two".into()), "{arrived} bytes arrived");
        assert_eq!(read(&mut stream, &mut rings, "c"), Ok("three".into()));
    }
}

#[test]
fn a_late_error_is_discarded() {
    let (mut stream, mut rings) = (Stream::new(), rings());
    assert_eq!(read(&mut stream, &mut rings, "a"), Err(StoreError::Silent));
    assert_eq!(read(&mut stream, &mut rings, "b"), Err(StoreError::Silent));
    rings.answers.extend(message(XS_ERROR, FIRST, b"ENOENT\0"));
    rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
    rings.answers.extend(message(XS_READ, FIRST + 2, b"three"));
    assert_eq!(read(&mut stream, &mut rings, "c"), Ok("three".into()));
}

#[test]
fn a_request_that_was_sent_in_part_is_completed_before_the_next() {
    let first = message(XS_READ, FIRST, b"a\0");
    for read_by_xenstored in 0..first.len() {
        let (mut stream, mut rings) = (Stream::new(), rings());
        rings.room = read_by_xenstored;
        assert_eq!(read(&mut stream, &mut rings, "a"), Err(StoreError::Silent));
        // There is still no room, so this request is not sent at all.
        assert_eq!(read(&mut stream, &mut rings, "lost"), Err(StoreError::Silent));
        rings.room = usize::MAX;
        rings.answers.extend(message(XS_READ, FIRST, b"one"));
        rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
        assert_eq!(read(&mut stream, &mut rings, "b"), Ok("two".into()));
        assert_eq!(rings.sent, [first.clone(), message(XS_READ, FIRST + 1, b"b\0")].concat());
    }
}

#[test]
fn messages_without_end_do_not_keep_the_caller() {
    let (mut stream, mut rings) = (Stream::new(), rings());
    // A watch event, which the kernel did not ask for.
    rings.repeated = message(15, 0, b"path\0token\0");
    assert_eq!(read(&mut stream, &mut rings, "a"), Err(StoreError::Silent));
    rings.repeated = Vec::new();
    rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
    assert_eq!(read(&mut stream, &mut rings, "b"), Ok("two".into()));
}

#[test]
fn an_answer_of_another_kind_is_an_error_of_its_request_alone() {
    let (mut stream, mut rings) = (Stream::new(), rings());
    rings.answers.extend(message(XS_WRITE, FIRST, b"OK\0"));
    rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
    let unexpected =
        StoreError::UnexpectedKind { asked: XS_READ, answered: XS_WRITE, request: FIRST };
    assert_eq!(read(&mut stream, &mut rings, "a"), Err(unexpected));
    assert_eq!(
        unexpected.to_string(),
        "xenstored answered request 0x78630001, which is of kind 2, by a message of kind 11; this request alone \
         failed: look for it in the log of xenstored in dom0"
    );
    assert_eq!(read(&mut stream, &mut rings, "b"), Ok("two".into()));
}

#[test]
fn after_a_message_that_is_too_long_nothing_is_believed() {
    let (mut stream, mut rings) = (Stream::new(), rings());
    let mut long = message(XS_READ, FIRST, b"");
    long[12..].copy_from_slice(&4097_u32.to_le_bytes());
    rings.answers.extend(long);
    rings.answers.extend(message(XS_READ, FIRST + 1, b"two"));
    let endless = StoreError::EndlessMessage { kind: XS_READ, request: FIRST, len: 4097 };
    assert_eq!(read(&mut stream, &mut rings, "a"), Err(endless));
    assert_eq!(read(&mut stream, &mut rings, "b"), Err(endless));
    assert_eq!(
        endless.to_string(),
        "xenstored sent a message of kind 2 for request 0x78630001 with 4097 bytes, but a message has at most \
         4096, so the next one cannot be found; create the domain again"
    );
    let mut stream = Stream::new();
    let longest = "a".repeat(4095);
    assert_eq!(read(&mut stream, &mut rings, &longest), Err(StoreError::Silent));
    let too_long = "a".repeat(4096);
    assert_eq!(read(&mut stream, &mut rings, &too_long), Err(StoreError::TooLong { bytes: 4097 }));
}
