//! Writing to xenstore, one key at a time (`docs/misc/xenstore.txt` in Xen's tree).

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayString;
use hypercall::abi::xenstore::{Header, RING_SIZE, StoreRing, XS_ERROR, XS_WRITE};
use hypercall::ops::{EventChannelOp, HvmOp, HvmParamIndex, Port};
use hypercall::{Xen, XenErrno};
use xen_contig::addr::Gfn;

use super::start_info::StartInfo;
use crate::events::{Deadline, nap};
use crate::hypervisor::xen;
use crate::kind::Kind;
use crate::layout::{self, slot};
use crate::machine::Machine;
use crate::paging::{READ_WRITE, set_window};

/// How long xenstored may take, in seconds: dom0 may be busy.
const PATIENCE: u64 = 60;

/// Why a key was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The domain has no xenstore ring.
    Absent,
    /// The ring could not be mapped, or xenstored not be notified.
    Xen(XenErrno),
    /// xenstored does not answer.
    Silent,
    /// It does not do what it was asked for, by its own word (`xsd_errors` in
    /// `public/io/xs_wire.h`).
    Refused(ArrayString<16>),
    /// It answered another question, or what is no answer: this kind of message, of this length.
    Odd {
        /// `XS_*`.
        kind: u32,
        /// Bytes.
        len: u32,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the domain has no xenstore ring"),
            Self::Xen(errno) => write!(f, "xenstore's ring: {errno}"),
            Self::Silent => write!(f, "xenstored has not answered for {PATIENCE} s"),
            Self::Refused(word) => write!(f, "xenstored refuses: {word}"),
            Self::Odd { kind, len } => {
                write!(f, "xenstored answers with a message of kind {kind} and {len} bytes")
            }
        }
    }
}

/// The guest's end of xenstore's ring.
pub struct Store {
    page: *mut StoreRing,
    port: Port,
}

/// The two indices of a ring, and its bytes.
struct Half {
    bytes: *mut u8,
    reader: *mut u32,
    writer: *mut u32,
}

impl Store {
    /// Finds the ring. One at a time: there is one ring.
    pub fn open(machine: &Machine) -> Result<Self, StoreError> {
        match machine.kind {
            Kind::Pv => {
                let (info, m2p) =
                    StartInfo::of(machine).zip(machine.m2p).ok_or(StoreError::Absent)?;
                let (mfn, port) = info.store().ok_or(StoreError::Absent)?;
                // SAFETY: the page is a frame of this domain, so it is RAM.
                let pfn = unsafe { m2p.pfn(mfn) }.filter(|pfn| machine.p2m.mfn(*pfn) == Some(mfn));
                let pfn = pfn.ok_or(StoreError::Absent)?;
                Ok(Self { page: layout::linear(pfn).as_mut_ptr(), port })
            }
            Kind::Pvh => {
                let param = |index| xen().hvm_op(HvmOp::GetParam(index)).map_err(StoreError::Xen);
                let page = param(HvmParamIndex::StorePfn)?;
                let port = u32::try_from(param(HvmParamIndex::StoreEvtchn)?);
                let (1.., Ok(port @ 1..)) = (page, port) else { return Err(StoreError::Absent) };
                let target = Some((Gfn::new(page), READ_WRITE));
                set_window(Kind::Pvh, slot::XENSTORE, target).map_err(StoreError::Xen)?;
                Ok(Self { page: layout::window(slot::XENSTORE).as_mut_ptr(), port: Port(port) })
            }
        }
    }

    /// Writes a value. The path is relative to the domain's own.
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), StoreError> {
        let deadline = Deadline::in_seconds(PATIENCE);
        let len = (path.len() + 1 + value.len()) as u32;
        let Header { kind, request, transaction, len } =
            Header { kind: XS_WRITE, request: 0, transaction: 0, len };
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
        let [kind, _, _, len] = head;
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
            _ => Err(StoreError::Odd { kind, len }),
        }
    }

    fn requests(&self) -> Half {
        // SAFETY: fields of the page, of which no reference is made.
        unsafe {
            Half {
                bytes: (&raw mut (*self.page).req).cast(),
                reader: &raw mut (*self.page).req_cons,
                writer: &raw mut (*self.page).req_prod,
            }
        }
    }

    fn answers(&self) -> Half {
        // SAFETY: as above.
        unsafe {
            Half {
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
            // SAFETY: within the ring; the byte is ours to write as long as the ring is not full.
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
            // SAFETY: within the ring; the byte is ours to read as long as the ring is not empty.
            *byte = unsafe { ring.bytes.add(reader as usize % RING_SIZE).read_volatile() };
            ring.reader().store(reader.wrapping_add(1), Ordering::Release);
        }
        Ok(())
    }

    /// Naps until it is so.
    fn wait(&self, deadline: Deadline, so: impl Fn() -> bool) -> Result<(), StoreError> {
        while !so() {
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

impl Half {
    fn reader(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, and both sides access the index as a whole.
        unsafe { AtomicU32::from_ptr(self.reader) }
    }

    fn writer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(self.writer) }
    }

    /// How many bytes wait in the ring.
    fn filled(&self) -> u32 {
        let writer = self.writer().load(Ordering::Acquire);
        writer.wrapping_sub(self.reader().load(Ordering::Acquire))
    }
}
