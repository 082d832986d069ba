//! The reason why xenstore did not do what was asked.

use core::fmt;

use arrayvec::ArrayString;
use hypercall::XenErrno;

use super::ring::TIMEOUT_SECONDS;

/// The maximum length of a message without its header (`XENSTORE_PAYLOAD_MAX` in
/// `public/io/xs_wire.h`).
pub const MAX_PAYLOAD: usize = 4096;

/// The reason why xenstore did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The domain has no xenstore ring.
    Absent,
    /// Xen refused to map the ring or to notify xenstored.
    Xen(XenErrno),
    /// xenstored does not answer.
    Silent,
    /// xenstored refused, with this error (`xsd_errors` in `public/io/xs_wire.h`).
    Refused(ArrayString<16>),
    /// The path or the value is too long for a message.
    TooLong {
        /// The length of the message in bytes.
        bytes: usize,
    },
    /// The answer is not UTF-8 text.
    Malformed,
    /// The answer has another kind than the request. Later requests are not affected.
    UnexpectedKind {
        /// The kind of the request, `XS_*`.
        asked: u32,
        /// The kind of the answer.
        answered: u32,
        /// The number of the request.
        request: u32,
    },
    /// The length in the header of a message is above the maximum, so the start of the next message is unknown.
    EndlessMessage {
        /// The kind of the message, `XS_*`.
        kind: u32,
        /// The number of the request that it answers.
        request: u32,
        /// The length in bytes.
        len: u32,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the domain has no xenstore ring"),
            Self::Xen(errno) => write!(f, "Xen refused the xenstore ring: {errno}"),
            Self::Silent => write!(f, "xenstored has not answered for {TIMEOUT_SECONDS} s"),
            Self::Refused(word) => write!(f, "xenstored refused: {word}"),
            Self::TooLong { bytes } => {
                write!(f, "a message of {bytes} bytes is longer than xenstored accepts")
            }
            Self::Malformed => f.write_str("xenstored's answer is not text"),
            Self::UnexpectedKind { asked, answered, request } => write!(
                f,
                "xenstored answered request {request:#x}, which is of kind {asked}, by a message of kind \
                 {answered}; this request alone failed: look for it in the log of xenstored in dom0"
            ),
            Self::EndlessMessage { kind, request, len } => write!(
                f,
                "xenstored sent a message of kind {kind} for request {request:#x} with {len} bytes, but a \
                 message has at most {MAX_PAYLOAD}, so the next one cannot be found; create the domain again"
            ),
        }
    }
}

impl core::error::Error for StoreError {}
