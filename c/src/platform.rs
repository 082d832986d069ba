//! What a C kernel supplies.

use core::ffi::{c_char, c_int, c_void};

use crate::error::Failure;

/// The kernel does not know what references the frame.
pub const XC_HOLDER_UNKNOWN: u32 = 0;
/// A page-table entry maps the frame.
pub const XC_HOLDER_MAPPING: u32 = 1;
/// The frame is a page table.
pub const XC_HOLDER_PAGE_TABLE: u32 = 2;
/// The frame is in a descriptor table.
pub const XC_HOLDER_DESCRIPTOR_TABLE: u32 = 3;
/// The frame is granted to another domain.
pub const XC_HOLDER_GRANTED: u32 = 4;
/// The frame is shared for good.
pub const XC_HOLDER_SHARED: u32 = 5;
/// A device accesses the frame.
pub const XC_HOLDER_DEVICE: u32 = 6;

/// What `take` returns if it has no such frames.
pub const XC_NO_FRAME: u64 = u64::MAX;

/// What references a frame.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct xc_holder {
    /// The frame.
    pub frame: u64,
    /// `XC_HOLDER_...`.
    pub kind: u32,
    /// For later versions.
    pub reserved: u32,
    /// The address, the level, the vCPU or the grant reference.
    pub value: u64,
    /// What shares the frame, or which device accesses it.
    pub name: *const c_char,
}

/// The kernel around the library.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct xc_platform {
    /// The size of this structure.
    pub size: u64,
    /// What each function receives first.
    pub context: *mut c_void,
    /// Makes a hypercall.
    pub hypercall: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            number: u32,
            a: u64,
            b: u64,
            c: u64,
            d: u64,
        ) -> i64,
    >,
    /// The P2M of a PV guest.
    pub p2m: *mut u64,
    /// The number of entries, or of guest frames.
    pub frames: u64,
    /// Where the linear mapping begins.
    pub linear_base: u64,
    /// Names the page-table entry of a frame.
    pub entry: Option<unsafe extern "C" fn(context: *mut c_void, frame: u64) -> u64>,
    /// Takes free frames.
    pub take: Option<unsafe extern "C" fn(context: *mut c_void, frames: u64, align: u64) -> u64>,
    /// Takes frames back.
    pub give: Option<unsafe extern "C" fn(context: *mut c_void, first: u64, frames: u64)>,
    /// Counts free frames.
    pub free_frames: Option<unsafe extern "C" fn(context: *mut c_void) -> u64>,
    /// Finds a run of free frames.
    pub next_free: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            from: u64,
            first: *mut u64,
            frames: *mut u64,
        ) -> c_int,
    >,
    /// Takes certain frames.
    pub take_at:
        Option<unsafe extern "C" fn(context: *mut c_void, first: u64, frames: u64) -> c_int>,
    /// Removes leftover mappings.
    pub purge: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            first: u64,
            frames: u64,
            holder: *mut xc_holder,
        ) -> c_int,
    >,
    /// Says what references a frame.
    pub holder: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            frame: u64,
            machine_frame: u64,
            holder: *mut xc_holder,
        ),
    >,
    /// Fills memory with zeros.
    pub zero: Option<unsafe extern "C" fn(context: *mut c_void, memory: *mut c_void, bytes: u64)>,
    /// Masks interrupts.
    pub mask: Option<unsafe extern "C" fn() -> u64>,
    /// Restores them.
    pub unmask: Option<unsafe extern "C" fn(state: u64)>,
}

impl xc_platform {
    /// Checks what can be checked without a call of the kernel.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        const PAGE: u64 = 4096;
        if self.size != size_of::<Self>() as u64 {
            return Err(Failure::PlatformSize { size: self.size });
        }
        for (given, argument) in [
            (self.hypercall.is_some(), "xc_platform.hypercall"),
            (self.take.is_some(), "xc_platform.take"),
            (self.give.is_some(), "xc_platform.give"),
            (self.free_frames.is_some(), "xc_platform.free_frames"),
        ] {
            if !given {
                return Err(Failure::Null { argument });
            }
        }
        let p2m = self.p2m as u64;
        if !p2m.is_multiple_of(align_of::<u64>() as u64) {
            return Err(Failure::MisalignedP2m { address: p2m });
        }
        if p2m != 0 && self.entry.is_none() {
            return Err(Failure::NoEntry);
        }
        if self.next_free.is_some() != self.take_at.is_some() {
            return Err(Failure::HalfOfPair { first: "next_free", second: "take_at" });
        }
        let (frames, base) = (self.frames, self.linear_base);
        let end = frames.checked_mul(PAGE).and_then(|bytes| base.checked_add(bytes));
        if frames == 0 || !base.is_multiple_of(PAGE) || end.is_none() {
            return Err(Failure::TooManyFrames { frames, base });
        }
        Ok(())
    }
}
