//! The two rings of bytes that the guest shares with xenstored.

use core::sync::atomic::{AtomicU32, Ordering};

use hypercall::Xen;
use hypercall::abi::xenstore::{RING_SIZE, StoreRing};
use hypercall::ops::{EventChannelOp, Port};

use super::StoreError;
use crate::events::nap;
use crate::guest::guest;
use crate::time::Deadline;
use crate::vcpu::xen;

/// The number of seconds that xenstored may take. dom0 may be busy.
pub const TIMEOUT_SECONDS: u64 = 60;

/// The guest's end of both rings.
pub struct RingPair {
    page: *mut StoreRing,
    port: Port,
}

/// The requests or the answers: two indices and the bytes.
struct Ring {
    bytes: *mut u8,
    reader: *mut u32,
    writer: *mut u32,
}

impl RingPair {
    /// Maps the rings.
    ///
    /// # Errors
    /// The domain has no rings, or Xen refused to map them.
    pub fn map() -> Result<Self, StoreError> {
        let (page, port) =
            guest().store_ring().map_err(StoreError::Xen)?.ok_or(StoreError::Absent)?;
        Ok(Self { page, port })
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

    /// Sends a byte of a request. [`notify`](Self::notify) follows the last one.
    ///
    /// # Errors
    /// xenstored does not read the ring.
    pub fn send(&mut self, byte: u8, deadline: Deadline) -> Result<(), StoreError> {
        let ring = self.requests();
        self.wait(deadline, || ring.filled() < RING_SIZE as u32)?;
        let writer = ring.writer().load(Ordering::Relaxed);
        // SAFETY: the byte lies within the ring. The ring is not full, so xenstored does not read
        // the byte before the new index is stored.
        unsafe { ring.bytes.add(writer as usize % RING_SIZE).write_volatile(byte) };
        ring.writer().store(writer.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// Receives a byte of an answer.
    ///
    /// # Errors
    /// xenstored does not write it.
    pub fn receive(&mut self, deadline: Deadline) -> Result<u8, StoreError> {
        let ring = self.answers();
        self.wait(deadline, || ring.filled() > 0)?;
        let reader = ring.reader().load(Ordering::Relaxed);
        // SAFETY: the byte lies within the ring. The ring is not empty, so xenstored does not write
        // the byte before the new index is stored.
        let byte = unsafe { ring.bytes.add(reader as usize % RING_SIZE).read_volatile() };
        ring.reader().store(reader.wrapping_add(1), Ordering::Release);
        Ok(byte)
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

    /// Tells xenstored that the ring has changed.
    ///
    /// # Errors
    /// Xen refused.
    pub fn notify(&self) -> Result<(), StoreError> {
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
