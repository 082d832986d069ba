//! Writing keys to xenstore (`docs/misc/xenstore.txt` in Xen's tree).

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayString;
use hypercall::abi::xenstore::{Header, RING_SIZE, StoreRing, XS_ERROR, XS_WRITE};
use hypercall::ops::{EventChannelOp, Port};
use hypercall::{Xen, XenErrno};

use crate::events::nap;
use crate::guest::guest;
use crate::time::Deadline;
use crate::vcpu::xen;

/// How many seconds xenstored may take. dom0 may be busy.
const TIMEOUT_SECONDS: u64 = 60;

/// The maximum length of a message without its header (`XENSTORE_PAYLOAD_MAX` in
/// `public/io/xs_wire.h`).
const MAX_PAYLOAD: u32 = 4096;

/// The number of the request, which the answer repeats. It is not 0, so that a cleared field is
/// noticed.
const REQUEST: u32 = 0x7863;

/// The reason why a key was not written.
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
    /// The message in the ring does not answer the request.
    UnexpectedMessage {
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
            Self::UnexpectedMessage { kind, request, len } => write!(
                f,
                "request {REQUEST:#x} of kind {XS_WRITE} was answered by a message of kind {kind} \
                 with {len} bytes for request {request:#x}"
            ),
        }
    }
}

/// The guest's end of xenstore's ring.
pub struct Store {
    page: *mut StoreRing,
    port: Port,
}

/// The requests or the answers of the ring: two indices and the bytes.
struct Ring {
    bytes: *mut u8,
    reader: *mut u32,
    writer: *mut u32,
}

impl Store {
    /// Maps the ring.
    ///
    /// # Errors
    /// The domain has no ring, or Xen refused to map it.
    pub fn open() -> Result<Self, StoreError> {
        let (page, port) =
            guest().store_ring().map_err(StoreError::Xen)?.ok_or(StoreError::Absent)?;
        Ok(Self { page, port })
    }

    /// Writes a value. The path is relative to the domain's own path.
    ///
    /// # Errors
    /// xenstored refused the write, or did not answer it.
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), StoreError> {
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        let len = (path.len() + 1 + value.len()) as u32;
        let Header { kind, request, transaction, len } =
            Header { kind: XS_WRITE, request: REQUEST, transaction: 0, len };
        for word in [kind, request, transaction, len] {
            self.send(&word.to_le_bytes(), deadline)?;
        }
        self.send(path.as_bytes(), deadline)?;
        self.send(&[0], deadline)?;
        self.send(value.as_bytes(), deadline)?;
        self.notify()?;

        let mut head = [0; 4];
        for word in &mut head {
            let mut bytes = [0; 4];
            self.receive(&mut bytes, deadline)?;
            *word = u32::from_le_bytes(bytes);
        }
        let [kind, request, _, len] = head;
        // The length is checked before the contents are read, because a wrong length would make
        // this wait for bytes that never arrive.
        if request != REQUEST || len > MAX_PAYLOAD {
            return Err(StoreError::UnexpectedMessage { kind, request, len });
        }
        let mut text = ArrayString::new();
        for _ in 0..len {
            let mut byte = [0];
            self.receive(&mut byte, deadline)?;
            if byte[0].is_ascii_graphic() && !text.is_full() {
                text.push(byte[0].into());
            }
        }
        match kind {
            XS_WRITE => Ok(()),
            XS_ERROR => Err(StoreError::Refused(text)),
            _ => Err(StoreError::UnexpectedMessage { kind, request, len }),
        }
    }

    fn requests(&self) -> Ring {
        // SAFETY: the page is mapped, and the fields lie within it. This code computes addresses
        // and accesses nothing.
        unsafe {
            Ring {
                bytes: (&raw mut (*self.page).req).cast(),
                reader: &raw mut (*self.page).req_cons,
                writer: &raw mut (*self.page).req_prod,
            }
        }
    }

    fn answers(&self) -> Ring {
        // SAFETY: the page is mapped, and the fields lie within it. This code computes addresses
        // and accesses nothing.
        unsafe {
            Ring {
                bytes: (&raw mut (*self.page).rsp).cast(),
                reader: &raw mut (*self.page).rsp_cons,
                writer: &raw mut (*self.page).rsp_prod,
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), StoreError> {
        let ring = self.requests();
        for byte in bytes {
            self.wait(deadline, || ring.filled() < RING_SIZE as u32)?;
            let writer = ring.writer().load(Ordering::Relaxed);
            // SAFETY: the byte lies within the ring. The ring is not full, so xenstored does not read
            // the byte before the new index is stored.
            unsafe { ring.bytes.add(writer as usize % RING_SIZE).write_volatile(*byte) };
            ring.writer().store(writer.wrapping_add(1), Ordering::Release);
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &mut [u8], deadline: Deadline) -> Result<(), StoreError> {
        let ring = self.answers();
        for byte in bytes {
            self.wait(deadline, || ring.filled() > 0)?;
            let reader = ring.reader().load(Ordering::Relaxed);
            // SAFETY: the byte lies within the ring. The ring is not empty, so xenstored does not write
            // the byte before the new index is stored.
            *byte = unsafe { ring.bytes.add(reader as usize % RING_SIZE).read_volatile() };
            ring.reader().store(reader.wrapping_add(1), Ordering::Release);
        }
        Ok(())
    }

    /// Naps until `done` returns true.
    fn wait(&self, deadline: Deadline, done: impl Fn() -> bool) -> Result<(), StoreError> {
        while !done() {
            if deadline.has_passed() {
                return Err(StoreError::Silent);
            }
            self.notify()?;
            nap();
        }
        Ok(())
    }

    fn notify(&self) -> Result<(), StoreError> {
        let sent = xen().event_channel_op(EventChannelOp::Send(self.port));
        sent.map(|_| ()).map_err(StoreError::Xen)
    }
}

impl Ring {
    fn reader(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as the domain runs, and both sides access the index as a
        // whole.
        unsafe { AtomicU32::from_ptr(self.reader) }
    }

    fn writer(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as the domain runs, and both sides access the index as a
        // whole.
        unsafe { AtomicU32::from_ptr(self.writer) }
    }

    /// Returns the number of bytes in the ring.
    fn filled(&self) -> u32 {
        let writer = self.writer().load(Ordering::Acquire);
        writer.wrapping_sub(self.reader().load(Ordering::Acquire))
    }
}
