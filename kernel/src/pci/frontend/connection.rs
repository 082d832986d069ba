//! The connection to the backend: opened by the first driver, closed when the kernel ends.

use alloc::vec::Vec;

use hypercall::Xen;
use hypercall::abi::pci::NOT_FOUND;
use hypercall::ops::{EventChannelOp, Port};
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;

use super::FrontendError;
use super::page::{self, Access};
use super::xenbus::{Ends, RootBus, TIMEOUT_SECONDS};
use crate::console::say;
use crate::events::nap;
use crate::grants::Grant;
use crate::machine::Machine;
use crate::time::Deadline;
use crate::vcpu::xen;
use crate::xenstore::{Store, StoreError};

/// The value that a read returns if the function does not exist.
const ABSENT: u32 = u32::MAX;

/// The one connection of the domain. A backend connects once, so it is not closed between drivers.
static STATE: Mutex<State> = Mutex::new(State::Unused);

enum State {
    /// No driver has asked for it.
    Unused,
    /// The toolstack passed no device to the domain.
    NoDevices,
    /// It serves requests.
    Open(Connection),
    /// It failed, or was closed.
    Failed(FrontendError),
}

struct Connection {
    ends: Ends,
    grant: Grant,
    port: Port,
    roots: Vec<RootBus>,
}

/// The right to use the connection.
#[derive(Clone, Debug)]
pub struct Frontend(());

impl Frontend {
    /// Connects to the backend, if no driver did before. Returns `None` if the toolstack passed no
    /// device to the domain. Sleeps.
    ///
    /// # Errors
    /// The backend does not connect.
    pub fn open(machine: &Machine) -> Result<Option<Self>, FrontendError> {
        let mut state = STATE.lock();
        if matches!(*state, State::Unused) {
            *state = match connect(machine) {
                Ok(Some(connection)) => State::Open(connection),
                Ok(None) => State::NoDevices,
                Err(error) => State::Failed(error),
            };
        }
        match &*state {
            State::Open(_) => Ok(Some(Self(()))),
            State::Failed(error) => Err(*error),
            State::Unused | State::NoDevices => Ok(None),
        }
    }

    /// Returns the buses from which the devices are found.
    pub fn roots(&self) -> Vec<RootBus> {
        match &*STATE.lock() {
            State::Open(connection) => connection.roots.clone(),
            _ => Vec::new(),
        }
    }

    /// Accesses a register. Returns `None` if the function does not exist or the backend refuses.
    fn ask(&self, address: PciAddress, offset: u16, access: Access) -> Option<u32> {
        let mut state = STATE.lock();
        let State::Open(connection) = &*state else { return None };
        match page::ask(connection.port, address, offset, access) {
            Ok((0, value)) => Some(value),
            Ok((NOT_FOUND, _)) => None,
            Ok((error, _)) => {
                say!(
                    "# pcifront: the backend refused {access:x?} at {address} {offset:#x}: {error}"
                );
                None
            }
            Err(error) => {
                say!("# {error}");
                *state = State::Failed(error);
                None
            }
        }
    }
}

impl ConfigRegionAccess for Frontend {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        self.ask(address, offset, Access::Read).unwrap_or(ABSENT)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // The trait has no error. A refusal was printed.
        let _answer = self.ask(address, offset, Access::Write(value));
    }
}

fn connect(machine: &Machine) -> Result<Option<Connection>, FrontendError> {
    let mut store = match Store::open() {
        Ok(store) => store,
        Err(StoreError::Absent) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(ends) = Ends::find(&mut store)? else { return Ok(None) };
    let backend = ends.backend_domain();
    // SAFETY: only `page` uses the frame, through raw pointers. If the connection fails, the grant
    // is never ended, and nothing else uses the frame.
    let grant = unsafe { Grant::new(machine, page::frame(), backend) };
    let grant = grant.map_err(FrontendError::Grant)?;
    let made = xen().event_channel_op(EventChannelOp::AllocUnbound { remote: backend });
    let made = made.map_err(|errno| FrontendError::Xen("EVTCHNOP_alloc_unbound", errno))?;
    let port = Port(made as u32);
    let roots = ends.connect(&mut store, grant.reference(), port)?;
    Ok(Some(Connection { ends, grant, port, roots }))
}

/// Closes the connection, if one is open, and ends the grant of its page.
///
/// The kernel calls this before it ends. A failure is printed: the toolstack then removes what
/// remains.
pub fn close(machine: &Machine) {
    let before = core::mem::replace(&mut *STATE.lock(), State::Failed(FrontendError::Closed));
    let State::Open(connection) = before else { return };
    match connection.close(machine) {
        Ok(()) => say!("# pcifront: closed, and its page is no longer granted"),
        Err(error) => say!("# closing pcifront: {error}"),
    }
}

impl Connection {
    fn close(self, machine: &Machine) -> Result<(), FrontendError> {
        let mut store = Store::open()?;
        self.ends.close(&mut store)?;
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        let mut grant = self.grant;
        // The backend says that it closes before it has unmapped the page.
        while let Err((kept, error)) = grant.end(machine) {
            if deadline.has_passed() {
                return Err(FrontendError::Grant(error));
            }
            grant = kept;
            nap();
        }
        let closed = xen().event_channel_op(EventChannelOp::Close(self.port));
        closed.map_err(|errno| FrontendError::Xen("EVTCHNOP_close", errno))?;
        self.ends.set_closed(&mut store)
    }
}
