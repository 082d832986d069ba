//! Coherent buffers.

use core::ffi::{c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr;

use xen_contig::dma::{CoherentBuffer, Request, Segment};

use crate::device::{Device, device_in, sleep, xc_device};
use crate::error::{Failure, answer, xc_error};
use crate::handle::{Kind, Slot};
use crate::kernel::Kernel;
use crate::text;

/// The number of words of a buffer.
pub const XC_BUFFER_WORDS: usize = 24;

/// A coherent buffer.
#[repr(C)]
pub struct xc_buffer {
    /// The first byte for the processor.
    pub memory: *mut c_void,
    /// The first byte for the device.
    pub device_address: u64,
    /// The number of bytes.
    pub bytes: u64,
    /// For the library.
    words: [u64; XC_BUFFER_WORDS],
}

/// A part of a buffer that a device sees as one address and length.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct xc_segment {
    /// The first byte for the device.
    pub device_address: u64,
    /// The offset of the first byte in the buffer.
    pub offset: u64,
    /// The number of bytes.
    pub bytes: u64,
}

impl From<Segment> for xc_segment {
    fn from(Segment { dma, offset, len }: Segment) -> Self {
        Self { device_address: dma.get(), offset, bytes: len }
    }
}

/// A buffer of a C driver.
struct Buffer {
    memory: CoherentBuffer<'static, Kernel>,
    device: &'static Device,
}

impl Kind for Buffer {
    type Storage = xc_buffer;
    const OFFSET: usize = offset_of!(xc_buffer, words);
    const NAME: &'static str = "xc_buffer";
    const SEAL: u64 = 0x2a75_d90c_e8f3_641b;
}

/// Copies segments to a caller. Returns the number of all of them.
///
/// # Safety
/// `segments` is null, or `capacity` segments may be written there.
pub(crate) unsafe fn copy_segments(
    found: impl Iterator<Item = Segment>,
    segments: *mut xc_segment,
    capacity: usize,
) -> usize {
    let capacity = if segments.is_null() { 0 } else { capacity };
    let mut count = 0;
    for segment in found {
        if count < capacity {
            // SAFETY: fewer than `capacity` segments lie before it: the function's requirement.
            unsafe { segments.add(count).write_unaligned(segment.into()) };
        }
        count += 1;
    }
    count
}

/// Allocates a coherent buffer.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_alloc(
    device: *const xc_device,
    bytes: u64,
    flags: u32,
    tag: *const c_char,
    buffer: *mut xc_buffer,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. The device
    // stays while it has users. `fill` has refused a null or misaligned `buffer` before its members are written.
    unsafe {
        answer(error, || {
            let device = device_in(device)?;
            let request = Request::new(bytes).sleep(sleep(flags)?).tag(text::name(tag, ""));
            let made = Slot::<Buffer>::fill(buffer, || {
                let memory = device.device.alloc_coherent(request)?;
                device.users.add();
                Ok(Buffer { memory, device })
            })?;
            (*buffer).memory = made.memory.as_ptr().as_ptr().cast();
            (*buffer).device_address = made.memory.dma_addr().get();
            (*buffer).bytes = made.memory.len();
            Ok(())
        })
    }
}

/// Frees a buffer.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_free(buffer: *mut xc_buffer, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. `take`
    // has refused a null or misaligned `buffer` before a member is written.
    unsafe {
        answer(error, || {
            let Buffer { memory, device } = Slot::<Buffer>::take(buffer)?;
            drop(memory);
            device.users.remove();
            (*buffer).memory = ptr::null_mut();
            Ok(())
        })
    }
}

/// Copies the segments of a buffer.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_segments(
    buffer: *const xc_buffer,
    segments: *mut xc_segment,
    capacity: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        match Slot::<Buffer>::get(buffer) {
            Ok(buffer) => copy_segments(buffer.memory.segments(), segments, capacity),
            Err(_) => 0,
        }
    }
}

/// Checks that a buffer has the addresses that the device received.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_check(buffer: *const xc_buffer, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        answer(error, || {
            let buffer = Slot::<Buffer>::get(buffer)?;
            buffer.memory.check_in_place().map_err(Failure::Buffer)
        })
    }
}
