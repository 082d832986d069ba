//! The codes of errors, for decisions of a C program.

use core::ffi::c_int;

use xen_contig::dma::{AllocError, MapError, PoolErrorKind};
use xen_contig::exchange::ExchangeError;

/// The call did what it says.
pub const XC_OK: c_int = 0;
/// An argument is wrong.
pub const XC_ERROR_ARGUMENT: c_int = 1;
/// The structure was not filled, was ended already, or was copied from elsewhere.
pub const XC_ERROR_HANDLE: c_int = 2;
/// Something still uses the object.
pub const XC_ERROR_IN_USE: c_int = 3;
/// The limits of a device or of a pool contradict each other.
pub const XC_ERROR_LIMITS: c_int = 4;
/// No memory can satisfy the request.
pub const XC_ERROR_REQUEST: c_int = 5;
/// Only a call that may sleep can satisfy the request.
pub const XC_ERROR_MUST_NOT_SLEEP: c_int = 6;
/// The kernel has too little free memory.
pub const XC_ERROR_GUEST_MEMORY: c_int = 7;
/// Xen has no such memory.
pub const XC_ERROR_XEN_MEMORY: c_int = 8;
/// Xen does not permit this domain what was asked for.
pub const XC_ERROR_NOT_PERMITTED: c_int = 9;
/// Something references a frame that the kernel handed out as free.
pub const XC_ERROR_FRAME_IN_USE: c_int = 10;
/// Xen refused the call for another reason.
pub const XC_ERROR_XEN: c_int = 11;
/// Frames were lost to a failure.
pub const XC_ERROR_LOST: c_int = 12;
/// All objects of the pool are in use.
pub const XC_ERROR_EXHAUSTED: c_int = 13;
/// The memory has other device addresses since a restore or a migration.
pub const XC_ERROR_MOVED: c_int = 14;
/// An error that this version has no code for.
pub const XC_ERROR_OTHER: c_int = 99;

/// Returns the code of an allocation.
pub(crate) const fn code_of_alloc(error: &AllocError) -> c_int {
    match error {
        AllocError::Constraints(_) => XC_ERROR_LIMITS,
        AllocError::ZeroSize
        | AllocError::TooLarge { .. }
        | AllocError::SegmentTooLong { .. }
        | AllocError::CrossesBoundary { .. }
        | AllocError::SegmentBelowAlignment { .. }
        | AllocError::TooManySegments { .. }
        | AllocError::LargerThanReach { .. }
        | AllocError::MemoryInUseStays
        | AllocError::NodeUnknown { .. } => XC_ERROR_REQUEST,
        AllocError::MustNotSleep | AllocError::RecordsFull { .. } => XC_ERROR_MUST_NOT_SLEEP,
        AllocError::NoGuestMemory { .. }
        | AllocError::NoListMemory { .. }
        | AllocError::NoRecordMemory { .. }
        | AllocError::NoFramesInReach { .. } => XC_ERROR_GUEST_MEMORY,
        AllocError::OutOfReach { .. } | AllocError::NoMemoryOnNode { .. } => XC_ERROR_XEN_MEMORY,
        AllocError::OrderNotPermitted { .. }
        | AllocError::AboveMaximum { .. }
        | AllocError::NoExchange(_) => XC_ERROR_NOT_PERMITTED,
        AllocError::Exchange(error) => code_of_exchange(error),
        AllocError::Lost { .. } => XC_ERROR_LOST,
        _ => XC_ERROR_OTHER,
    }
}

/// Returns the code of a mapping.
pub(crate) const fn code_of_map(error: &MapError) -> c_int {
    match error {
        MapError::Empty
        | MapError::PastAddressSpace { .. }
        | MapError::LargerThanGuest { .. }
        | MapError::NotBacked { .. }
        | MapError::TooLong { .. } => XC_ERROR_REQUEST,
        MapError::NoBounceMemory { error, .. } => code_of_alloc(error),
        MapError::Moved { .. } => XC_ERROR_MOVED,
        _ => XC_ERROR_OTHER,
    }
}

const fn code_of_exchange(error: &ExchangeError) -> c_int {
    match error {
        ExchangeError::NoListMemory { .. } => XC_ERROR_GUEST_MEMORY,
        ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. } => XC_ERROR_XEN_MEMORY,
        ExchangeError::OrderNotPermitted { .. }
        | ExchangeError::NotPermitted
        | ExchangeError::NodeNotPermitted { .. }
        | ExchangeError::TranslatedGuest => XC_ERROR_NOT_PERMITTED,
        ExchangeError::FrameBusy { .. } | ExchangeError::FrameRefused { .. } => {
            XC_ERROR_FRAME_IN_USE
        }
        ExchangeError::Refused { .. }
        | ExchangeError::PageTable { .. }
        | ExchangeError::Record { .. }
        | ExchangeError::Flush { .. } => XC_ERROR_XEN,
        ExchangeError::Torn { .. } | ExchangeError::BadExtent { .. } => XC_ERROR_LOST,
        _ => XC_ERROR_OTHER,
    }
}

/// Returns the code of a pool.
pub(crate) const fn code_of_pool(kind: &PoolErrorKind) -> c_int {
    match kind {
        PoolErrorKind::ZeroSize
        | PoolErrorKind::TooLarge { .. }
        | PoolErrorKind::Alignment { .. }
        | PoolErrorKind::CrossesBoundary { .. }
        | PoolErrorKind::SegmentTooLong { .. }
        | PoolErrorKind::ReserveAboveLimit { .. }
        | PoolErrorKind::Constraints(_) => XC_ERROR_LIMITS,
        PoolErrorKind::Exhausted { .. } => XC_ERROR_EXHAUSTED,
        PoolErrorKind::Alloc { error, .. } => code_of_alloc(error),
        PoolErrorKind::RecordMemory { .. } => XC_ERROR_GUEST_MEMORY,
        PoolErrorKind::Moved { .. } => XC_ERROR_MOVED,
        _ => XC_ERROR_OTHER,
    }
}
