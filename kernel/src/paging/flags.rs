//! The rights of mappings, as flags of page-table entries.

use hypercall::PageTableFlags;

/// Flags of memory that is read and written.
pub const READ_WRITE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY)
    .union(PageTableFlags::NO_EXECUTE);

/// Flags of memory that is only read.
pub const READ: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED).union(PageTableFlags::NO_EXECUTE);

/// Flags of code.
pub const EXECUTE: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::ACCESSED);

/// Flags of an entry that names a lower table.
pub const TABLE: PageTableFlags = PageTableFlags::PRESENT
    .union(PageTableFlags::WRITABLE)
    .union(PageTableFlags::ACCESSED)
    .union(PageTableFlags::DIRTY);

/// Flags of a device's registers. Neither reads nor writes are cached.
pub const REGISTERS: PageTableFlags =
    READ_WRITE.union(PageTableFlags::NO_CACHE).union(PageTableFlags::WRITE_THROUGH);
