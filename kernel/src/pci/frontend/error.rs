//! The reason why pcifront is not connected.

use core::fmt;

use hypercall::XenErrno;

use super::backend_id::BackendIdError;
use super::xenbus::{BackendState, TIMEOUT_SECONDS};
use crate::grants::GrantError;
use crate::xenstore::StoreError;

/// The reason why pcifront is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendError {
    /// xenstore failed.
    Store(StoreError),
    /// The page was not granted to the backend.
    Grant(GrantError),
    /// Xen refused a step.
    Xen(&'static str, XenErrno),
    /// The toolstack's key is missing or has another form.
    Key(&'static str),
    /// The backend is not in another domain.
    BackendId(BackendIdError),
    /// The backend did not connect in time, or has closed. The value is its last state.
    Backend(Option<BackendState>),
    /// The backend did not answer a request.
    Silent,
    /// The connection was closed.
    Closed,
}

impl fmt::Display for FrontendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "pcifront: {error}"),
            Self::Grant(error) => write!(f, "pcifront's page: {error}"),
            Self::Xen(step, errno) => write!(f, "pcifront: {step}: {errno}"),
            Self::Key(key) => write!(
                f,
                "pcifront: the key {key} in xenstore is missing or has an unknown form; was the \
                 domain created by xl?"
            ),
            Self::BackendId(error) => write!(f, "pcifront: {error}"),
            Self::Backend(state) => {
                f.write_str("the PCI backend in dom0 does not connect: ")?;
                match state {
                    Some(state) => write!(f, "its state is {state}")?,
                    None => f.write_str("it has no state")?,
                }
                f.write_str("; load the module xen-pciback in dom0 and create the domain again")
            }
            Self::Silent => write!(
                f,
                "the PCI backend in dom0 has not answered a request for {TIMEOUT_SECONDS} s"
            ),
            Self::Closed => f.write_str("pcifront was closed, because the kernel ends"),
        }
    }
}

impl core::error::Error for FrontendError {}

impl From<StoreError> for FrontendError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
