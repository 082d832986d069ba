//! The PV console ring (`public/io/console.h`).

use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use hypercall::Xen;
use hypercall::abi::console::{ConsoleRing, OUTPUT_RING_SIZE};
use hypercall::ops::{EventChannelOp, Port};

use crate::hypervisor::untraced;
use crate::{events, vcpu};

/// The number of naps of a millisecond after which the kernel gives up a backend.
///
/// The limit is high because a backend on a busy host may not run for seconds, and its log would
/// lack the output.
const MAX_NAPS: u32 = 20_000;

/// The guest's end of the ring.
pub struct ConsoleQueue {
    page: *mut ConsoleRing,
    port: Port,
    /// The vCPU that accesses the page, or [`NONE`].
    user: AtomicU32,
}

/// No vCPU.
const NONE: u32 = u32::MAX;

// SAFETY: the page is mapped on all vCPUs, and `ConsoleQueue` accesses it through raw pointers only. The
// methods that write take `&mut self`, so two vCPUs never write at the same time.
unsafe impl Send for ConsoleQueue {}

/// The error of a backend that does not read the ring.
pub struct BackendGone;

impl ConsoleQueue {
    /// Returns the ring at `page`, whose backend listens at `port`.
    ///
    /// # Safety
    /// `page` maps the console page, writable, until [`move_to`](Self::move_to) names another one.
    pub const unsafe fn new(page: *mut ConsoleRing, port: Port) -> Self {
        Self { page, port, user: AtomicU32::new(NONE) }
    }

    /// Returns true if this vCPU was accessing the page when it was interrupted. The access itself
    /// may have caused the panic, so a panic does not access the page again.
    pub fn is_interrupted(&self) -> bool {
        self.user.load(Ordering::Relaxed) == vcpu::current().number()
    }

    /// Calls `access`, which accesses the page.
    fn accessing<R>(&self, access: impl FnOnce(*mut ConsoleRing) -> R) -> R {
        self.user.store(vcpu::current().number(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = access(self.page);
        compiler_fence(Ordering::SeqCst);
        self.user.store(NONE, Ordering::Relaxed);
        result
    }

    /// Makes the queue use another mapping of the page.
    ///
    /// # Safety
    /// `page` maps the console page, writable, until the next call of this method.
    pub const unsafe fn move_to(&mut self, page: *mut ConsoleRing) {
        self.page = page;
    }

    /// Makes the queue use the port of another backend.
    pub const fn rebind(&mut self, port: Port) {
        self.port = port;
    }

    /// Writes all of `text`, and waits for the backend while the ring is full.
    ///
    /// # Errors
    /// The backend does not read the ring.
    pub fn write(&mut self, text: &[u8]) -> Result<(), BackendGone> {
        let mut remaining = MAX_NAPS;
        let mut rest = text;
        while !rest.is_empty() {
            let written = self.write_some(rest);
            rest = &rest[written..];
            if written > 0 {
                self.notify()?;
            } else if remaining == 0 {
                return Err(BackendGone);
            } else {
                remaining -= 1;
                events::nap();
            }
        }
        Ok(())
    }

    /// Waits until the backend has read the whole ring, at most 20 s.
    ///
    /// Xen frees the ring when the domain ends, and unread output is lost.
    pub fn drain(&mut self) {
        let mut remaining = MAX_NAPS;
        while remaining > 0 && !self.is_empty() {
            remaining -= 1;
            events::nap();
        }
    }

    fn is_empty(&self) -> bool {
        // SAFETY: by the contracts of `new` and `move_to` the page is mapped. The backend also
        // writes the indices, so all accesses to them are atomic.
        self.accessing(|page| unsafe {
            let consumer = AtomicU32::from_ptr(&raw mut (*page).out_cons);
            let producer = AtomicU32::from_ptr(&raw mut (*page).out_prod);
            consumer.load(Ordering::Acquire) == producer.load(Ordering::Relaxed)
        })
    }

    fn notify(&self) -> Result<(), BackendGone> {
        let sent = untraced().event_channel_op(EventChannelOp::Send(self.port));
        sent.map(|_| ()).map_err(|_| BackendGone)
    }

    /// Writes as many bytes as fit and returns their number.
    fn write_some(&mut self, text: &[u8]) -> usize {
        // SAFETY: by the contracts of `new` and `move_to` the page is mapped writable, and the
        // fields lie within it. The backend also accesses the indices, so all accesses to them are
        // atomic. The backend does not read the bytes from `producer` on before the new index is
        // stored.
        self.accessing(|page| unsafe {
            let consumer = AtomicU32::from_ptr(&raw mut (*page).out_cons);
            let producer = AtomicU32::from_ptr(&raw mut (*page).out_prod);
            let start = producer.load(Ordering::Relaxed);
            let used = start.wrapping_sub(consumer.load(Ordering::Acquire));
            // If the backend's index is invalid, `free` is 0, so that nothing is overwritten.
            let free = OUTPUT_RING_SIZE.saturating_sub(used as usize);
            let count = text.len().min(free);
            let output = (&raw mut (*page).output).cast::<u8>();
            for (index, byte) in text[..count].iter().enumerate() {
                let at = (start as usize).wrapping_add(index) % OUTPUT_RING_SIZE;
                output.add(at).write_volatile(*byte);
            }
            producer.store(start.wrapping_add(count as u32), Ordering::Release);
            count
        })
    }
}
