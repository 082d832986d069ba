//! `public/io/xs_wire.h`: the page that a guest shares with xenstored, and its messages.

use super::assert_layout;

/// The size in bytes of each of the two rings.
pub const RING_SIZE: usize = 1024;

/// `XS_DIRECTORY`: lists the keys below a path. The message is the path and a zero byte. The reply is the
/// names, each with a zero byte.
pub const XS_DIRECTORY: u32 = 1;
/// `XS_READ`: reads a value. The message is the path and a zero byte.
pub const XS_READ: u32 = 2;
/// `XS_WRITE`: writes a value. The message is a path, a zero byte and the value.
pub const XS_WRITE: u32 = 11;
/// `XS_ERROR`: a reply that reports an error. The message is its name and a zero byte.
pub const XS_ERROR: u32 = 16;

/// `struct xenstore_domain_interface`: the fields that every version has.
///
/// Xenstored reads and writes this memory at any time. Access it only through raw pointers, by
/// volatile or atomic operations; never make a reference to it.
#[repr(C)]
pub struct StoreRing {
    /// The ring of bytes to xenstored.
    pub req: [u8; RING_SIZE],
    /// The ring of bytes from xenstored.
    pub rsp: [u8; RING_SIZE],
    /// The index at which xenstored reads next.
    pub req_cons: u32,
    /// The index at which the guest writes next.
    pub req_prod: u32,
    /// The index at which the guest reads next.
    pub rsp_cons: u32,
    /// The index at which xenstored writes next.
    pub rsp_prod: u32,
}
assert_layout!(StoreRing, size 2064,
    req @ 0, rsp @ 1024, req_cons @ 2048, req_prod @ 2052, rsp_cons @ 2056, rsp_prod @ 2060);

/// `struct xsd_sockmsg`: the header of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// The type of the message, `XS_*`.
    pub kind: u32,
    /// A number that the reply repeats.
    pub request: u32,
    /// The transaction; 0 for none.
    pub transaction: u32,
    /// The number of bytes that follow.
    pub len: u32,
}
assert_layout!(Header, size 16, kind @ 0, request @ 4, transaction @ 8, len @ 12);
