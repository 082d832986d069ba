//! `public/io/xs_wire.h`: the page that a guest shares with xenstored, and its messages.

use super::assert_layout;

/// Bytes of each of the two rings.
pub const RING_SIZE: usize = 1024;

/// `XS_WRITE`: a path, a zero byte, and the value.
pub const XS_WRITE: u32 = 11;
/// `XS_ERROR`: the name of an error and a zero byte.
pub const XS_ERROR: u32 = 16;

/// `struct xenstore_domain_interface`, as far as every version has it. Lives in memory that
/// xenstored reads and writes at any time: never make a reference to one, go through raw pointers
/// with volatile or atomic accesses.
#[repr(C)]
pub struct StoreRing {
    /// Bytes to xenstored.
    pub req: [u8; RING_SIZE],
    /// Bytes from xenstored.
    pub rsp: [u8; RING_SIZE],
    /// Where xenstored reads next.
    pub req_cons: u32,
    /// Where the guest writes next.
    pub req_prod: u32,
    /// Where the guest reads next.
    pub rsp_cons: u32,
    /// Where xenstored writes next.
    pub rsp_prod: u32,
}
assert_layout!(StoreRing, size 2064,
    req @ 0, rsp @ 1024, req_cons @ 2048, req_prod @ 2052, rsp_cons @ 2056, rsp_prod @ 2060);

/// `struct xsd_sockmsg`: what each message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// `XS_*`.
    pub kind: u32,
    /// Echoed in the answer.
    pub request: u32,
    /// 0 outside transactions.
    pub transaction: u32,
    /// Bytes that follow.
    pub len: u32,
}
assert_layout!(Header, size 16, kind @ 0, request @ 4, transaction @ 8, len @ 12);
