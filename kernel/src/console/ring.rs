//! The PV console ring (`public/io/console.h`).

use core::sync::atomic::{AtomicU32, Ordering};

use hypercall::Xen;
use hypercall::abi::console::{ConsoleRing, OUTPUT_RING_SIZE};
use hypercall::ops::{EventChannelOp, Port};

use crate::events;
use crate::hypervisor::untraced;

/// How often the kernel naps, a millisecond at a time, for a backend that does not empty the ring
/// before it gives it up: one on a busy host may not run for seconds, and what it misses is lost.
const PATIENCE: u32 = 20_000;

/// The guest's end of the ring.
pub struct Ring {
    page: *mut ConsoleRing,
    port: Port,
}

// SAFETY: the page is shared memory that is only accessed through raw pointers; the ring itself
// is behind the console's lock.
unsafe impl Send for Ring {}

/// The backend does not read.
pub struct BackendGone;

impl Ring {
    /// The ring at `page`, whose backend listens at `port`.
    ///
    /// # Safety
    /// `page` maps the console page, writable, until [`move_to`](Self::move_to) says otherwise.
    pub const unsafe fn new(page: *mut ConsoleRing, port: Port) -> Self {
        Self { page, port }
    }

    /// # Safety
    /// As for [`new`](Self::new).
    pub const unsafe fn move_to(&mut self, page: *mut ConsoleRing) {
        self.page = page;
    }

    /// Listens at another port, where the backend has changed.
    pub const fn rebind(&mut self, port: Port) {
        self.port = port;
    }

    /// Writes all of `text`, waiting for the backend where the ring is full.
    pub fn write(&mut self, text: &[u8]) -> Result<(), BackendGone> {
        let mut patience = PATIENCE;
        let mut rest = text;
        while !rest.is_empty() {
            let written = self.write_some(rest);
            rest = &rest[written..];
            if written > 0 {
                self.notify()?;
            } else if patience == 0 {
                return Err(BackendGone);
            } else {
                patience -= 1;
                events::nap();
            }
        }
        Ok(())
    }

    /// Waits until the backend has taken all there is, if it does: a domain that ends takes what is
    /// left in its ring with it.
    pub fn drain(&mut self) {
        let mut patience = PATIENCE;
        while patience > 0 && !self.is_empty() {
            patience -= 1;
            events::nap();
        }
    }

    fn is_empty(&self) -> bool {
        // SAFETY: the page is mapped (see `new`); the indices are shared, so they are atomics.
        unsafe {
            let consumer = AtomicU32::from_ptr(&raw mut (*self.page).out_cons);
            let producer = AtomicU32::from_ptr(&raw mut (*self.page).out_prod);
            consumer.load(Ordering::Acquire) == producer.load(Ordering::Relaxed)
        }
    }

    fn notify(&self) -> Result<(), BackendGone> {
        let sent = untraced().event_channel_op(EventChannelOp::Send(self.port));
        sent.map(|_| ()).map_err(|_| BackendGone)
    }

    /// Writes what fits.
    fn write_some(&mut self, text: &[u8]) -> usize {
        // SAFETY: the page is mapped (see `new`) and the fields lie within it. The indices are
        // shared with the backend, so they are atomics; the bytes between them are ours to write.
        unsafe {
            let consumer = AtomicU32::from_ptr(&raw mut (*self.page).out_cons);
            let producer = AtomicU32::from_ptr(&raw mut (*self.page).out_prod);
            let start = producer.load(Ordering::Relaxed);
            let used = start.wrapping_sub(consumer.load(Ordering::Acquire));
            // A backend that counts nonsense gets nothing rather than an overrun.
            let free = OUTPUT_RING_SIZE.saturating_sub(used as usize);
            let count = text.len().min(free);
            let output = (&raw mut (*self.page).output).cast::<u8>();
            for (index, byte) in text[..count].iter().enumerate() {
                let at = (start as usize).wrapping_add(index) % OUTPUT_RING_SIZE;
                output.add(at).write_volatile(*byte);
            }
            producer.store(start.wrapping_add(count as u32), Ordering::Release);
            count
        }
    }
}
