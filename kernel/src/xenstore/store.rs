//! Requests to xenstored (`docs/misc/xenstore.txt` in Xen's tree).

use alloc::string::String;
use alloc::vec::Vec;

use hypercall::abi::xenstore::{XS_DIRECTORY, XS_READ, XS_WRITE};
use spin::{Mutex, MutexGuard};

use super::StoreError;
use super::ring::RingPair;
use super::stream::Stream;

/// The messages that all connections have exchanged with xenstored.
static STREAM: Mutex<Stream> = Mutex::new(Stream::new());

/// The guest's connection to xenstored. One caller at a time has it.
///
/// Paths that do not begin with a slash are relative to the domain's own path.
pub struct Store {
    rings: RingPair,
    stream: MutexGuard<'static, Stream>,
}

impl Store {
    /// Maps the ring. Waits until another caller has dropped its connection.
    ///
    /// # Errors
    /// The domain has no ring, or Xen refused to map it.
    pub fn open() -> Result<Self, StoreError> {
        let stream = STREAM.lock();
        Ok(Self { rings: RingPair::map()?, stream })
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

    fn ask(&mut self, kind: u32, parts: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
        self.stream.ask(&mut self.rings, kind, parts)
    }
}

/// Returns `None` if xenstored answered that the key does not exist.
fn existing(answer: Result<Vec<u8>, StoreError>) -> Result<Option<Vec<u8>>, StoreError> {
    match answer {
        Err(StoreError::Refused(word)) if word.as_str() == "ENOENT" => Ok(None),
        answer => answer.map(Some),
    }
}
