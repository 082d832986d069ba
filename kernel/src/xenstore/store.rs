//! Requests to xenstored, and their answers (`docs/misc/xenstore.txt` in Xen's tree).

use alloc::string::String;
use alloc::vec::Vec;

use arrayvec::ArrayString;
use hypercall::abi::xenstore::{Header, XS_DIRECTORY, XS_ERROR, XS_READ, XS_WRITE};
use spin::{Mutex, MutexGuard};

use super::StoreError;
use super::ring::{RingPair, TIMEOUT_SECONDS};
use crate::time::Deadline;

/// The maximum length of a message without its header (`XENSTORE_PAYLOAD_MAX` in
/// `public/io/xs_wire.h`).
const MAX_PAYLOAD: usize = 4096;

/// The number of the last request. It does not start at 0, so that a cleared field is noticed.
static LAST_REQUEST: Mutex<u32> = Mutex::new(0x7863_0000);

/// The guest's connection to xenstored. One caller at a time has it.
///
/// Paths that do not begin with a slash are relative to the domain's own path.
pub struct Store {
    rings: RingPair,
    last_request: MutexGuard<'static, u32>,
}

impl Store {
    /// Maps the ring. Waits until another caller has dropped its connection.
    ///
    /// # Errors
    /// The domain has no ring, or Xen refused to map it.
    pub fn open() -> Result<Self, StoreError> {
        let last_request = LAST_REQUEST.lock();
        Ok(Self { rings: RingPair::map()?, last_request })
    }

    /// Writes a value.
    ///
    /// # Errors
    /// xenstored refused the write, or did not answer it.
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), StoreError> {
        self.ask(XS_WRITE, &[path.as_bytes(), &[0], value.as_bytes()]).map(|_| ())
    }

    /// Reads a value. Returns `None` if the key does not exist.
    ///
    /// # Errors
    /// xenstored refused the request, or did not answer it.
    pub fn read(&mut self, path: &str) -> Result<Option<String>, StoreError> {
        let answer = existing(self.ask(XS_READ, &[path.as_bytes(), &[0]]))?;
        answer.map(|bytes| String::from_utf8(bytes).map_err(|_| StoreError::Malformed)).transpose()
    }

    /// Returns the names below a key, or an empty list if the key does not exist.
    ///
    /// # Errors
    /// xenstored refused the request, or did not answer it.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        let answer = existing(self.ask(XS_DIRECTORY, &[path.as_bytes(), &[0]]))?;
        let text = String::from_utf8(answer.unwrap_or_default());
        let text = text.map_err(|_| StoreError::Malformed)?;
        // Each name ends with a zero byte.
        Ok(text.split_terminator('\0').map(String::from).collect())
    }

    /// Sends a request and returns the contents of its answer.
    fn ask(&mut self, kind: u32, parts: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        let bytes = parts.iter().map(|part| part.len()).sum();
        if bytes > MAX_PAYLOAD {
            return Err(StoreError::TooLong { bytes });
        }
        // Each request has its own number, so that the late answer to another one is noticed.
        *self.last_request = self.last_request.wrapping_add(1);
        let asked = *self.last_request;
        let Header { kind, request, transaction, len } =
            Header { kind, request: asked, transaction: 0, len: bytes as u32 };
        for word in [kind, request, transaction, len] {
            self.rings.send(&word.to_le_bytes(), deadline)?;
        }
        for part in parts {
            self.rings.send(part, deadline)?;
        }
        self.rings.notify()?;

        let mut head = [0; 4];
        for word in &mut head {
            let mut bytes = [0; 4];
            self.rings.receive(&mut bytes, deadline)?;
            *word = u32::from_le_bytes(bytes);
        }
        let [answered, request, _, len] = head;
        // The length is checked before the contents are read, because a wrong length would make
        // this wait for bytes that never arrive.
        if request != asked || len as usize > MAX_PAYLOAD {
            return Err(StoreError::UnexpectedMessage { kind: answered, request, len });
        }
        let mut contents = alloc::vec![0; len as usize];
        self.rings.receive(&mut contents, deadline)?;
        match answered {
            _ if answered == kind => Ok(contents),
            XS_ERROR => Err(StoreError::Refused(word(&contents))),
            _ => Err(StoreError::UnexpectedMessage { kind: answered, request, len }),
        }
    }
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

/// Returns `None` if xenstored answered that the key does not exist.
fn existing(answer: Result<Vec<u8>, StoreError>) -> Result<Option<Vec<u8>>, StoreError> {
    match answer {
        Err(StoreError::Refused(word)) if word.as_str() == "ENOENT" => Ok(None),
        answer => answer.map(Some),
    }
}
