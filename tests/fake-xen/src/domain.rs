//! What Xen permits the guest, and how many frames the guest has.

use hypercall::{DomId, XenErrno};

/// The guest's number.
pub const GUEST: DomId = DomId(1);

/// The domain under test.
#[derive(Debug)]
pub(crate) struct Domain {
    pub id: DomId,
    /// The number of its frames (`tot_pages`).
    pub pages: u64,
    /// The highest number of frames that it may have (`max_pages`).
    pub max_pages: u64,
    /// The highest order of an extent (`memop-max-order`).
    pub max_order: u32,
    /// A control domain: it may choose NUMA nodes and write to Xen's log.
    pub privileged: bool,
    /// The error of a policy (XSM) that denies exchanges.
    pub exchange_denied: Option<XenErrno>,
    /// Whether Xen exchanges memory of a translated guest. No released Xen does.
    pub exchange_translated: bool,
    /// Xen's map of a translated guest: from `Pfn` to machine frame.
    pub physmap: Option<Vec<Option<u64>>>,
}

impl Domain {
    pub const fn is_translated(&self) -> bool {
        self.physmap.is_some()
    }

    /// Returns true if a hypercall's domain number means the caller.
    pub fn is_self(&self, id: DomId) -> bool {
        id == DomId::SELF || id == self.id
    }
}
