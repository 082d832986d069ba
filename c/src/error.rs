//! Errors for C: a code for decisions, and the whole text for people.

use core::ffi::{c_char, c_int};
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;

use xen_contig::dma::{
    AllocError, BufferError, BuffersMoved, ConstraintError, MapError, PoolError,
};

use crate::codes::{
    XC_ERROR_ARGUMENT, XC_ERROR_HANDLE, XC_ERROR_IN_USE, XC_ERROR_LIMITS, XC_ERROR_MOVED,
    XC_ERROR_OTHER, XC_OK, code_of_alloc, code_of_map, code_of_pool,
};
use crate::text;

/// The number of words of an error.
pub const XC_ERROR_WORDS: usize = 16;

/// Marks an error that the library has written.
const WRITTEN: u32 = 0x5ea1_e440;

/// Why a call failed.
#[repr(C)]
pub struct xc_error {
    /// `XC_OK` or `XC_ERROR_...`.
    code: c_int,
    /// For the library.
    mark: u32,
    /// For the library.
    words: [u64; XC_ERROR_WORDS],
}

const _: () = assert!(size_of::<Failure>() <= 8 * XC_ERROR_WORDS);
const _: () = assert!(align_of::<Failure>() <= align_of::<u64>());

/// Why a call failed, as the library knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    /// A pointer is null.
    Null {
        /// The argument, or its type.
        argument: &'static str,
    },
    /// Storage is not a multiple of 8.
    Misaligned {
        /// The type of the storage.
        kind: &'static str,
        /// Its address.
        address: u64,
    },
    /// An argument has unknown bits.
    UnknownFlags {
        /// The flags.
        flags: u32,
        /// Those that are known here.
        known: u32,
    },
    /// A direction of data is unknown.
    Direction {
        /// The direction.
        direction: u32,
    },
    /// `xc_platform` was compiled from another header.
    PlatformSize {
        /// The size that the caller knows.
        size: u64,
    },
    /// The P2M is not a multiple of 8.
    MisalignedP2m {
        /// Its address.
        address: u64,
    },
    /// A PV kernel has no function for its page-table entries.
    NoEntry,
    /// Frames do not fit into the address space.
    TooManyFrames {
        /// The number of frames.
        frames: u64,
        /// Where their linear mapping begins.
        base: u64,
    },
    /// One of two functions that belong together is missing.
    HalfOfPair {
        /// One of them.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },
    /// Another allocator masks interrupts by other functions.
    OtherMask,
    /// Storage without the object that it should have.
    Handle {
        /// The type of the object.
        kind: &'static str,
        /// The address of the storage.
        address: u64,
    },
    /// Something still uses an object.
    InUse {
        /// The type of the object.
        kind: &'static str,
        /// The number of objects that use it.
        users: u64,
    },
    /// The limits of a device.
    Limits(ConstraintError),
    /// An allocation.
    Alloc(AllocError),
    /// A pool.
    Pool(PoolError),
    /// A buffer.
    Buffer(BufferError),
    /// The buffers of a device.
    Moved(BuffersMoved),
    /// A mapping.
    Map(MapError),
}

impl Failure {
    /// Returns the code in C.
    pub const fn code(&self) -> c_int {
        match self {
            Self::Null { .. }
            | Self::Misaligned { .. }
            | Self::UnknownFlags { .. }
            | Self::Direction { .. }
            | Self::PlatformSize { .. }
            | Self::MisalignedP2m { .. }
            | Self::NoEntry
            | Self::TooManyFrames { .. }
            | Self::HalfOfPair { .. }
            | Self::OtherMask => XC_ERROR_ARGUMENT,
            Self::Handle { .. } => XC_ERROR_HANDLE,
            Self::InUse { .. } => XC_ERROR_IN_USE,
            Self::Limits(_) => XC_ERROR_LIMITS,
            Self::Alloc(error) => code_of_alloc(error),
            Self::Pool(error) => code_of_pool(&error.kind()),
            Self::Buffer(BufferError::Moved(_)) | Self::Moved(_) => XC_ERROR_MOVED,
            Self::Buffer(BufferError::OutOfBounds { .. }) => XC_ERROR_ARGUMENT,
            Self::Buffer(_) => XC_ERROR_OTHER,
            Self::Map(error) => code_of_map(error),
        }
    }

    /// Returns true if the same call can succeed later although its caller changes nothing.
    const fn is_transient(&self) -> bool {
        match self {
            Self::Limits(error) => error.is_transient(),
            Self::Alloc(error) => error.is_transient(),
            Self::Pool(error) => error.is_transient(),
            Self::Buffer(error) => error.is_transient(),
            Self::Map(error) => error.is_transient(),
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null { argument } => write!(f, "{argument} is NULL: it must be given"),
            Self::Misaligned { kind, address } => {
                write!(f, "struct {kind} at {address:#x} must lie at a multiple of 8")
            }
            Self::UnknownFlags { flags, known } => write!(
                f,
                "flags {flags:#x} contain {:#x}, which this call does not know: use {known:#x} at most",
                flags & !known
            ),
            Self::Direction { direction } => write!(
                f,
                "direction {direction} must be XC_TO_DEVICE (1), XC_FROM_DEVICE (2) or XC_BIDIRECTIONAL (3)"
            ),
            Self::PlatformSize { size } => write!(
                f,
                "xc_platform.size is {size}, and the library knows {} bytes: set it to sizeof(struct \
                 xc_platform), and compile with the header of this library",
                size_of::<crate::platform::xc_platform>()
            ),
            Self::MisalignedP2m { address } => write!(
                f,
                "xc_platform.p2m {address:#x} must be a multiple of 8: an entry has 8 bytes"
            ),
            Self::NoEntry => f.write_str(
                "xc_platform.entry is NULL although xc_platform.p2m is not: a PV kernel must name its \
                 page-table entries",
            ),
            Self::TooManyFrames { frames, base } => write!(
                f,
                "xc_platform.frames is {frames}: it must be at least 1, and the frames must fit into the \
                 addresses from xc_platform.linear_base {base:#x} on, a multiple of 4096"
            ),
            Self::HalfOfPair { first, second } => write!(
                f,
                "one of xc_platform.{first} and xc_platform.{second} is NULL: give both or neither"
            ),
            Self::OtherMask => f.write_str(
                "xc_platform.mask and xc_platform.unmask differ from those of an allocator that exists: give \
                 the same to both, or end that allocator first",
            ),
            Self::Handle { kind, address } => write!(
                f,
                "the memory at {address:#x} is not a struct {kind} in use: it was never filled, was ended \
                 already, or was copied from elsewhere"
            ),
            Self::InUse { kind, users } => {
                write!(f, "{users} objects use this struct {kind}: free them first")
            }
            Self::Limits(error) => error.fmt(f),
            Self::Alloc(error) => error.fmt(f),
            Self::Pool(error) => error.fmt(f),
            Self::Buffer(error) => error.fmt(f),
            Self::Moved(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}
from!(
    ConstraintError => Limits,
    AllocError => Alloc,
    PoolError => Pool,
    BufferError => Buffer,
    BuffersMoved => Moved,
    MapError => Map,
);

/// Runs a function of the interface, writes its error for the caller, and returns its code.
///
/// # Safety
/// `error` is null or names an `xc_error` that may be written.
pub(crate) unsafe fn answer(
    error: *mut xc_error,
    function: impl FnOnce() -> Result<(), Failure>,
) -> c_int {
    match function() {
        Ok(()) => {
            // SAFETY: as for this function.
            unsafe { write_code(error, XC_OK, 0) };
            XC_OK
        }
        Err(failure) => {
            let code = failure.code();
            // SAFETY: as for this function. A failure fits the words, which are aligned for it.
            unsafe {
                if !error.is_null() {
                    (&raw mut (*error).words).cast::<Failure>().write_unaligned(failure);
                }
                write_code(error, code, WRITTEN);
            }
            code
        }
    }
}

/// Writes a value as text with a zero at the end, or the failure in its place. Returns the bytes of the whole
/// text.
///
/// # Safety
/// As for [`text::write`].
pub(crate) unsafe fn write_text(
    buffer: *mut c_char,
    size: usize,
    result: Result<impl fmt::Display, Failure>,
) -> usize {
    // SAFETY: as for this function.
    unsafe {
        match result {
            Ok(value) => text::write(buffer, size, &value),
            Err(failure) => text::write(buffer, size, &failure),
        }
    }
}

/// # Safety
/// As for [`answer`].
unsafe fn write_code(error: *mut xc_error, code: c_int, mark: u32) {
    if !error.is_null() {
        // SAFETY: the error may be written: the function's requirement.
        unsafe {
            (&raw mut (*error).code).write_unaligned(code);
            (&raw mut (*error).mark).write_unaligned(mark);
        }
    }
}

/// Returns the failure that an error contains.
///
/// # Safety
/// `error` is null or names a readable `xc_error`.
unsafe fn failure(error: *const xc_error) -> Option<Failure> {
    if error.is_null() {
        return None;
    }
    // SAFETY: the error is readable: the function's requirement. Its words are a failure if the mark says
    // so.
    unsafe {
        let mark = ptr::addr_of!((*error).mark).read_unaligned();
        let words = ptr::addr_of!((*error).words).cast::<MaybeUninit<Failure>>();
        (mark == WRITTEN).then(|| words.read_unaligned().assume_init())
    }
}

/// Writes the text of an error.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_error_text(
    error: *const xc_error,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: the error is null or readable, and the buffer is null or writable: the function's requirement.
    unsafe {
        match failure(error) {
            Some(failure) => text::write(buffer, size, &failure),
            None => text::write(buffer, size, &"no error"),
        }
    }
}

/// Returns 1 if the same call can succeed later although the caller changes nothing.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_error_is_transient(error: *const xc_error) -> c_int {
    // SAFETY: the error is null or readable: the function's requirement.
    let failure = unsafe { failure(error) };
    failure.is_some_and(|failure| failure.is_transient()).into()
}
