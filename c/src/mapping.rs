//! Streaming: a device accesses memory of the kernel for a while.

use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use xen_contig::dma::{BufferError, Direction, Mapping, Sleep};

use crate::buffer::{copy_segments, xc_segment};
use crate::device::{Device, device_in, sleep, xc_device};
use crate::error::{Failure, answer, xc_error};
use crate::handle::{Kind, Slot};
use crate::kernel::Kernel;

/// The device reads.
pub const XC_TO_DEVICE: u32 = 1;
/// The device writes.
pub const XC_FROM_DEVICE: u32 = 2;
/// The device reads and writes.
pub const XC_BIDIRECTIONAL: u32 = 3;

/// The number of words of a mapping.
pub const XC_MAPPING_WORDS: usize = 96;

/// Bytes of the kernel.
#[repr(C)]
pub struct xc_range {
    /// The first byte.
    pub memory: *mut c_void,
    /// The number of bytes.
    pub bytes: u64,
}

/// A mapping.
#[repr(C)]
pub struct xc_mapping {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of bytes that are bounced.
    pub bounced_bytes: u64,
    /// For the library.
    words: [u64; XC_MAPPING_WORDS],
}

/// A mapping of a C driver.
struct Mapped {
    memory: Mapping<'static, Kernel>,
    device: &'static Device,
}

impl Kind for Mapped {
    type Storage = xc_mapping;
    const OFFSET: usize = offset_of!(xc_mapping, words);
    const NAME: &'static str = "xc_mapping";
    const SEAL: u64 = 0xb17e_604d_f5a8_932c;
}

fn direction(direction: u32) -> Result<Direction, Failure> {
    match direction {
        XC_TO_DEVICE => Ok(Direction::ToDevice),
        XC_FROM_DEVICE => Ok(Direction::FromDevice),
        XC_BIDIRECTIONAL => Ok(Direction::Bidirectional),
        direction => Err(Failure::Direction { direction }),
    }
}

/// Returns the bytes of a range.
fn bytes_of(range: &xc_range) -> Result<NonNull<[u8]>, Failure> {
    let first = NonNull::new(range.memory.cast::<u8>());
    let first = first.ok_or(Failure::Null { argument: "xc_range.memory" })?;
    Ok(NonNull::slice_from_raw_parts(first, range.bytes as usize))
}

/// A range as the library keeps it, in the place of the caller's.
type Kept = NonNull<[u8]>;
const _: () = assert!(size_of::<Kept>() == size_of::<xc_range>());
const _: () = assert!(align_of::<Kept>() == align_of::<xc_range>());

/// Returns the ranges of a caller as the library keeps them. They replace the caller's, so that the library
/// needs no memory for a list. Nothing is replaced after an error.
///
/// # Safety
/// `count` ranges from `ranges` on may be written. They stay until the mapping ends.
unsafe fn keep(ranges: *mut xc_range, count: usize) -> Result<&'static [Kept], Failure> {
    if ranges.is_null() {
        return Err(Failure::Null { argument: "xc_range" });
    }
    if !ranges.is_aligned() {
        return Err(Failure::Misaligned { kind: "xc_range", address: ranges as u64 });
    }
    for at in 0..count {
        // SAFETY: the ranges may be read: the function's requirement.
        bytes_of(unsafe { &*ranges.add(at) })?;
    }
    for at in 0..count {
        // SAFETY: the ranges may be written, and a kept one has size and alignment of a caller's. It is read
        // before it is replaced.
        unsafe {
            let kept = bytes_of(&ranges.add(at).read())?;
            ranges.add(at).cast::<Kept>().write(kept);
        }
    }
    // SAFETY: all of the ranges were replaced, and they stay.
    Ok(unsafe { slice::from_raw_parts(ranges.cast::<Kept>(), count) })
}

/// What `xc_map` and `xc_map_list` have in common.
///
/// # Safety
/// As `xen_contig.h` says of `xc_sync_for_cpu` and `xc_sync_for_device`.
unsafe fn fill(
    device: *const xc_device,
    flags: u32,
    mapping: *mut xc_mapping,
    map: impl FnOnce(&'static Device, Sleep) -> Result<Mapping<'static, Kernel>, Failure>,
) -> Result<(), Failure> {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. The device stays
    // while it has users. `Slot` has refused a null or misaligned `mapping` before its members are written.
    unsafe {
        let (device, sleep) = (device_in(device)?, sleep(flags)?);
        let made = Slot::<Mapped>::fill(mapping, || {
            let memory = map(device, sleep)?;
            device.users.add();
            Ok(Mapped { memory, device })
        })?;
        (*mapping).bytes = made.memory.len();
        (*mapping).bounced_bytes = made.memory.bounced_bytes();
        Ok(())
    }
}

/// Maps memory for a device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_map(
    device: *const xc_device,
    memory: *mut c_void,
    bytes: u64,
    direction: u32,
    flags: u32,
    mapping: *mut xc_mapping,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says, and the bytes may be accessed as
    // `Device::map` requires: the function's requirement.
    unsafe {
        answer(error, || {
            let direction = self::direction(direction)?;
            let range = bytes_of(&xc_range { memory, bytes })?;
            fill(device, flags, mapping, |device, sleep| {
                Ok(device.device.mapper().sleep(sleep).map(range, direction)?)
            })
        })
    }
}

/// Maps several ranges of memory for a device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_map_list(
    device: *const xc_device,
    ranges: *mut xc_range,
    count: usize,
    direction: u32,
    flags: u32,
    mapping: *mut xc_mapping,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says, and the bytes may be accessed as
    // `Device::map` requires: the function's requirement. The ranges stay until the mapping ends.
    unsafe {
        answer(error, || {
            let direction = self::direction(direction)?;
            fill(device, flags, mapping, |device, sleep| {
                let list = keep(ranges, count)?;
                Ok(device.device.mapper().sleep(sleep).map_list(list, direction)?)
            })
        })
    }
}

/// Ends a mapping.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_unmap(mapping: *mut xc_mapping, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        answer(error, || {
            let Mapped { memory, device } = Slot::<Mapped>::take(mapping)?;
            drop(memory);
            device.users.remove();
            Ok(())
        })
    }
}

/// Copies the segments of a mapping.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_map_segments(
    mapping: *const xc_mapping,
    segments: *mut xc_segment,
    capacity: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        match Slot::<Mapped>::get(mapping) {
            Ok(mapped) => copy_segments(mapped.memory.segments(), segments, capacity),
            Err(_) => 0,
        }
    }
}

/// Hands bytes of a mapping to the processor or to the device, by `sync`.
///
/// # Safety
/// As `xen_contig.h` says of `xc_sync_for_cpu` and `xc_sync_for_device`.
unsafe fn hand_over(
    mapping: *mut xc_mapping,
    offset: u64,
    bytes: u64,
    error: *mut xc_error,
    sync: fn(&mut Mapping<'static, Kernel>, Range<u64>) -> Result<(), BufferError>,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says, and nothing else uses the mapping: the
    // function's requirement.
    unsafe {
        answer(error, || {
            let mapped = Slot::<Mapped>::get_mut(mapping)?;
            Ok(sync(&mut mapped.memory, offset..offset.saturating_add(bytes))?)
        })
    }
}

/// Hands bytes of a mapping to the processor.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_sync_for_cpu(
    mapping: *mut xc_mapping,
    offset: u64,
    bytes: u64,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: this function requires what `hand_over` does.
    unsafe { hand_over(mapping, offset, bytes, error, Mapping::sync_for_cpu) }
}

/// Hands bytes of a mapping to the device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_sync_for_device(
    mapping: *mut xc_mapping,
    offset: u64,
    bytes: u64,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: this function requires what `hand_over` does.
    unsafe { hand_over(mapping, offset, bytes, error, Mapping::sync_for_device) }
}

/// Checks that a mapping has the addresses that the device received.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_map_check(mapping: *const xc_mapping, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        answer(error, || {
            let mapped = Slot::<Mapped>::get(mapping)?;
            Ok(mapped.memory.check_in_place()?)
        })
    }
}

/// Returns the most bytes that a device can map wherever they lie.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_max_mapping(device: *const xc_device) -> u64 {
    // SAFETY: the pointer is null or names what its type says: the function's requirement.
    unsafe { device_in(device).map_or(0, |device| device.device.max_mapping()) }
}
