//! The handshake of the two ends, by keys in xenstore (`public/io/xenbus.h`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use hypercall::DomId;
use hypercall::abi::pci::MAGIC;
use hypercall::ops::Port;

use super::{FrontendError, backend_id};
use crate::events::nap;
use crate::time::Deadline;
use crate::xenstore::Store;

/// The domain's directory of PCI frontends, which the toolstack makes.
const FRONTENDS: &str = "device/pci";

/// The number of seconds that the backend may take. dom0 may be busy.
pub const TIMEOUT_SECONDS: u64 = 60;

/// The state of one end (`enum xenbus_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendState(u8);

/// The states that the frontend takes, and those of the backend that it waits for.
const INITIALISED: BackendState = BackendState(3);
const CONNECTED: BackendState = BackendState(4);
const CLOSING: BackendState = BackendState(5);
const CLOSED: BackendState = BackendState(6);

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 9] = [
            "Unknown",
            "Initialising",
            "InitWait",
            "Initialised",
            "Connected",
            "Closing",
            "Closed",
            "Reconfiguring",
            "Reconfigured",
        ];
        write!(f, "{}, {}", self.0, NAMES.get(usize::from(self.0)).unwrap_or(&"unknown"))
    }
}

/// The places in xenstore of the two ends.
#[derive(Clone, Debug)]
pub struct Ends {
    frontend: String,
    backend: String,
    backend_domain: DomId,
}

/// A bus from which the devices are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootBus {
    /// The PCI segment.
    pub segment: u16,
    /// The number of the bus.
    pub bus: u8,
}

impl RootBus {
    /// Parses `segment:bus` in hexadecimal.
    fn parse(text: &str) -> Option<Self> {
        let (segment, bus) = text.split_once(':')?;
        let segment = u16::from_str_radix(segment, 16).ok()?;
        Some(Self { segment, bus: u8::from_str_radix(bus, 16).ok()? })
    }
}

impl Ends {
    /// Returns the ends that the toolstack has made, or `None` if it passed no device to the domain.
    ///
    /// # Errors
    /// xenstore failed, a key is missing, or the backend is not in another domain.
    pub fn find(store: &mut Store) -> Result<Option<Self>, FrontendError> {
        // The toolstack makes one frontend, with all devices.
        let Some(id) = store.list(FRONTENDS)?.into_iter().next() else { return Ok(None) };
        let frontend = format!("{FRONTENDS}/{id}");
        let backend = store.read(&format!("{frontend}/backend"))?;
        let backend = backend.ok_or(FrontendError::Key("device/pci/…/backend"))?;
        let id = store.read(&format!("{frontend}/backend-id"))?;
        let id = id.ok_or(FrontendError::Key("device/pci/…/backend-id"))?;
        let own = store.read("domid")?;
        let backend_domain = backend_id::parse(&id, own.as_deref());
        let backend_domain = backend_domain.map_err(FrontendError::BackendId)?;
        Ok(Some(Self { frontend, backend, backend_domain }))
    }

    /// Returns the domain of the backend.
    pub const fn backend_domain(&self) -> DomId {
        self.backend_domain
    }

    /// Publishes page and event channel, and waits until the backend has connected to them.
    ///
    /// # Errors
    /// xenstore failed, or the backend does not connect.
    pub fn connect(
        &self,
        store: &mut Store,
        reference: u32,
        port: Port,
    ) -> Result<Vec<RootBus>, FrontendError> {
        self.publish(store, "pci-op-ref", &format!("{reference}"))?;
        self.publish(store, "event-channel", &format!("{}", port.0))?;
        self.publish(store, "magic", MAGIC)?;
        self.set_state(store, INITIALISED)?;
        let state = self.wait_for_backend(store, |state| state >= CONNECTED)?;
        if state != Some(CONNECTED) {
            return Err(FrontendError::Backend(state));
        }
        let roots = self.roots(store)?;
        self.set_state(store, CONNECTED)?;
        Ok(roots)
    }

    /// Asks the backend to close, and waits until it does.
    ///
    /// # Errors
    /// xenstore failed.
    pub fn close(&self, store: &mut Store) -> Result<(), FrontendError> {
        self.set_state(store, CLOSING)?;
        self.wait_for_backend(store, |state| state >= CLOSING)?;
        Ok(())
    }

    /// Records that this end has released everything.
    ///
    /// # Errors
    /// xenstore failed.
    pub fn set_closed(&self, store: &mut Store) -> Result<(), FrontendError> {
        self.set_state(store, CLOSED)
    }

    fn roots(&self, store: &mut Store) -> Result<Vec<RootBus>, FrontendError> {
        let count = store.read(&format!("{}/root_num", self.backend))?;
        let count = count.and_then(|text| text.parse::<u8>().ok());
        let count = count.ok_or(FrontendError::Key("backend/pci/…/root_num"))?;
        let mut root = |index| {
            let text = store.read(&format!("{}/root-{index}", self.backend))?;
            let root = text.and_then(|text| RootBus::parse(&text));
            root.ok_or(FrontendError::Key("backend/pci/…/root-N"))
        };
        (0..count).map(&mut root).collect()
    }

    fn publish(&self, store: &mut Store, key: &str, value: &str) -> Result<(), FrontendError> {
        Ok(store.write(&format!("{}/{key}", self.frontend), value)?)
    }

    fn set_state(&self, store: &mut Store, state: BackendState) -> Result<(), FrontendError> {
        self.publish(store, "state", &format!("{}", state.0))
    }

    /// Waits until `done` accepts the state of the backend, or the time is over. Returns the last
    /// state.
    fn wait_for_backend(
        &self,
        store: &mut Store,
        done: impl Fn(BackendState) -> bool,
    ) -> Result<Option<BackendState>, FrontendError> {
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        let path = format!("{}/state", self.backend);
        loop {
            let state = store.read(&path)?.and_then(|text| text.parse().ok()).map(BackendState);
            if state.is_some_and(&done) || deadline.has_passed() {
                return Ok(state);
            }
            nap();
        }
    }
}
