//! Configuration space of the devices that dom0 passes to a PV domU (pcifront).
//!
//! The toolstack writes to xenstore which backend serves the domain. The two ends agree on a page
//! and on an event channel. From then on the guest writes a request to the page and sends an event,
//! and the backend writes the answer to the page.
//!
//! | question | place |
//! |---|---|
//! | how do the two ends find each other? | `xenbus` |
//! | which domain has the backend? | `backend_id` |
//! | how is a register read and written? | `page` |
//! | who has the connection? | `connection` |
//! | what can fail? | `error` |

mod backend_id;
mod connection;
mod error;
mod page;
mod xenbus;

pub use connection::{Frontend, close};
pub use error::FrontendError;
pub use xenbus::RootBus;
