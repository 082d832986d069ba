//! Devices and their limits.

use core::ffi::{c_char, c_int};
use core::mem::offset_of;

use xen_contig::dma::{self, Constraints, Sleep};

use crate::allocator::{Guest, Users, guest_in, xc_allocator};
use crate::error::{Failure, answer, write_text, xc_error};
use crate::handle::{Kind, Slot};
use crate::kernel::Kernel;
use crate::text;

/// The call must not sleep.
pub const XC_NO_SLEEP: u32 = 1;

/// The number of words of a device.
pub const XC_DEVICE_WORDS: usize = 64;

/// What a device can reach. 0 stands for no limit.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct xc_limits {
    /// The highest address of a byte.
    pub mask: u64,
    /// The lowest address.
    pub lowest: u64,
    /// The alignment of each segment's address.
    pub align: u64,
    /// No segment crosses a multiple of this number.
    pub boundary: u64,
    /// The most bytes of a segment.
    pub max_segment: u64,
    /// The most segments of a buffer.
    pub max_segments: u64,
    /// The alignment of each segment of a mapping.
    pub streaming_align: u64,
}

/// A device.
#[repr(C)]
pub struct xc_device {
    /// For the library.
    words: [u64; XC_DEVICE_WORDS],
}

/// A device of a C kernel.
pub(crate) struct Device {
    /// The device.
    pub device: dma::Device<'static, Kernel>,
    guest: &'static Guest,
    /// Its buffers and pools.
    pub users: Users,
}

impl Kind for Device {
    type Storage = xc_device;
    const OFFSET: usize = offset_of!(xc_device, words);
    const NAME: &'static str = "xc_device";
    const SEAL: u64 = 0x93e8_417d_b60a_2cf1;
}

/// Returns whether a call with these flags may sleep.
///
/// # Errors
/// Unknown flags.
pub(crate) fn sleep(flags: u32) -> Result<Sleep, Failure> {
    match flags {
        0 => Ok(Sleep::May),
        XC_NO_SLEEP => Ok(Sleep::MustNot),
        flags => Err(Failure::UnknownFlags { flags, known: XC_NO_SLEEP }),
    }
}

/// Returns the device in a caller's storage.
///
/// # Safety
/// As for [`Slot::get`].
pub(crate) unsafe fn device_in(device: *const xc_device) -> Result<&'static Device, Failure> {
    // SAFETY: as for this function.
    unsafe { Slot::<Device>::get(device) }
}

/// Converts limits, in which 0 stands for no limit.
fn constraints(limits: &xc_limits) -> Result<Constraints, Failure> {
    let unless_zero = |value, default| if value == 0 { default } else { value };
    let segments = usize::try_from(unless_zero(limits.max_segments, 1)).unwrap_or(usize::MAX);
    let mut builder = Constraints::builder()
        .mask(unless_zero(limits.mask, u64::MAX))
        .lowest(limits.lowest)
        .align(unless_zero(limits.align, 1))
        .max_segment(unless_zero(limits.max_segment, u64::MAX))
        .max_segments(segments);
    if limits.streaming_align > 0 {
        builder = builder.streaming_align(limits.streaming_align);
    }
    if limits.boundary > 0 {
        builder = builder.boundary(limits.boundary);
    }
    Ok(builder.build()?)
}

/// Makes a device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_device_init(
    device: *mut xc_device,
    allocator: *const xc_allocator,
    name: *const c_char,
    limits: *const xc_limits,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. The allocator
    // stays while it has users.
    unsafe {
        answer(error, || {
            let guest = guest_in(allocator)?;
            let Some(limits) = limits.as_ref() else {
                return Err(Failure::Null { argument: "xc_limits" });
            };
            Slot::<Device>::fill(device, || {
                let (name, limits) = (text::name(name, "unnamed"), constraints(limits)?);
                let device = dma::Device::new(&guest.allocator, name, &limits)?;
                guest.users.add();
                Ok(Device { device, guest, users: Users::default() })
            })
            .map(|_| ())
        })
    }
}

/// Ends a device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_device_fini(device: *mut xc_device, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. Nothing uses
    // the device, since it counts its users.
    unsafe {
        answer(error, || {
            device_in(device)?.users.check_none(Device::NAME)?;
            let Device { device, guest, .. } = Slot::<Device>::take(device)?;
            drop(device);
            guest.users.remove();
            Ok(())
        })
    }
}

/// Checks that all buffers of a device have the addresses that the device received.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_device_check(device: *const xc_device, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe { answer(error, || Ok(device_in(device)?.device.check_in_place()?)) }
}

/// Writes the limits, the counters and the live buffers of a device.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_device_text(
    device: *const xc_device,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        let report = device_in(device).map(|device| device.device.report());
        write_text(buffer, size, report)
    }
}
