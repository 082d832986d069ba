//! What Xen knows about a machine frame: its owner, its references and its type.

use hypercall::DomId;

use crate::content::Content;

/// The owner of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A hole in the machine's memory map, which is not memory.
    Hole,
    /// Xen's heap.
    Free,
    /// Xen itself.
    Xen,
    /// A domain.
    Domain(DomId),
    /// Taken from its owner by an exchange that is under way.
    Stolen,
}

/// What a frame is used as. A frame has one type at a time, and changes it when its type count is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageType {
    /// Nothing in particular.
    None,
    /// Mapped writable.
    Writable,
    /// A first-level page table, every entry validated.
    L1,
}

/// A machine frame.
#[derive(Debug)]
pub(crate) struct MachineFrame {
    pub owner: Owner,
    /// The reference that ownership itself is (`PGC_allocated`).
    pub allocated: bool,
    /// All other references: one for each mapping, pin, hook and hold.
    pub references: u32,
    /// The part of `references` that another domain made: grant mappings.
    pub holds: u32,
    pub kind: PageType,
    pub kind_count: u32,
    pub pinned: bool,
    /// Shared with Xen: shared_info, grant table (`PGC_xen_heap`, `PGC_extra`).
    pub special: bool,
    pub content: Content,
}

impl MachineFrame {
    pub const fn of(owner: Owner) -> Self {
        Self {
            owner,
            allocated: matches!(owner, Owner::Domain(_)),
            references: 0,
            holds: 0,
            kind: PageType::None,
            kind_count: 0,
            pinned: false,
            special: false,
            content: Content::Fill(0),
        }
    }

    /// Gives the frame to another owner, with no references. Its bytes stay.
    pub fn renew(&mut self, owner: Owner) {
        let content = std::mem::replace(&mut self.content, Content::Fill(0));
        *self = Self { content, ..Self::of(owner) };
    }

    /// Returns true if the frame can also be used as `kind`.
    pub fn admits(&self, kind: PageType) -> bool {
        self.kind_count == 0 || self.kind == kind
    }
}
