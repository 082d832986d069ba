//! What Xen allows the guest, and how much it has.

use hypercall::{DomId, XenErrno};

/// The guest's number.
pub const GUEST: DomId = DomId(1);

/// The domain under test.
#[derive(Debug)]
pub(crate) struct Domain {
    pub id: DomId,
    /// Frames that it has (`tot_pages`).
    pub pages: u64,
    /// Frames that it may have (`max_pages`).
    pub max_pages: u64,
    /// The highest order of an extent (`memop-max-order`).
    pub max_order: u32,
    /// A control domain: may ask for NUMA nodes, may write to Xen's log.
    pub privileged: bool,
    /// What a policy (XSM) answers to an exchange, if it objects.
    pub exchange_denied: Option<XenErrno>,
    /// Xen's own map for a translated guest: `Pfn` to machine frame.
    pub physmap: Option<Vec<Option<u64>>>,
}

impl Domain {
    pub const fn is_translated(&self) -> bool {
        self.physmap.is_some()
    }

    /// Whether a hypercall's domain number means the caller.
    pub fn is_self(&self, id: DomId) -> bool {
        id == DomId::SELF || id == self.id
    }
}
