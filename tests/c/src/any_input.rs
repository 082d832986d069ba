//! Calls of the C interface with any numbers, which must not panic.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

use xen_contig_c::allocator::{xc_allocator, xc_fini, xc_init, xc_reclaim, xc_trim};
use xen_contig_c::buffer::{xc_alloc, xc_buffer, xc_check, xc_free, xc_segments};
use xen_contig_c::codes::{XC_ERROR_HANDLE, XC_OK};
use xen_contig_c::device::{xc_device, xc_device_fini, xc_device_init, xc_limits};
use xen_contig_c::error::{xc_error, xc_error_text};
use xen_contig_c::mapping::{
    xc_map, xc_map_segments, xc_mapping, xc_max_mapping, xc_sync_for_cpu, xc_sync_for_device,
    xc_unmap,
};
use xen_contig_c::platform::xc_platform;
use xen_contig_c::pool::{
    xc_object, xc_pool, xc_pool_alloc, xc_pool_config, xc_pool_fini, xc_pool_free, xc_pool_init,
};

/// Numbers at which limits, sizes and flags change their meaning.
const NUMBERS: [u64; 22] = [
    0,
    0,
    0,
    1,
    2,
    3,
    7,
    8,
    24,
    63,
    64,
    512,
    4095,
    4096,
    4097,
    0x1fff,
    0xffff,
    1 << 16,
    (1 << 22) - 1,
    u32::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// A source of numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        NUMBERS[(self.0 >> 32) as usize % NUMBERS.len()]
    }

    /// Returns 0, the default, three times out of four: limits seldom fit each other.
    fn seldom(&mut self) -> u64 {
        let number = self.next();
        if self.0.is_multiple_of(4) { number } else { 0 }
    }
}

/// Storage of C, with any content.
fn storage<T>() -> Box<MaybeUninit<T>> {
    let mut storage = Box::new(MaybeUninit::<T>::uninit());
    // SAFETY: the bytes belong to the storage.
    unsafe { ptr::write_bytes(storage.as_mut_ptr().cast::<u8>(), 0xa5, size_of::<T>()) };
    storage
}

/// Makes `rounds` devices and lets each do everything with any numbers.
///
/// # Safety
/// The platform is that of a running kernel. `memory` has `bytes` bytes of it.
pub unsafe fn run(platform: &xc_platform, memory: *mut u8, bytes: u64, rounds: u64) {
    let (mut allocator, mut error) = (storage::<xc_allocator>(), storage::<xc_error>());
    let (allocator, error) = (allocator.as_mut_ptr(), error.as_mut_ptr());
    let mut numbers = Numbers(0x5eed_0fa1_1c0d_e001);
    // SAFETY: all pointers name storage of their types, and the numbers may be any: `xen_contig.h`.
    unsafe {
        assert_eq!(xc_init(allocator, platform, error), XC_OK);
        for _ in 0..rounds {
            let mut device = storage::<xc_device>();
            let limits = xc_limits {
                mask: numbers.seldom(),
                lowest: numbers.seldom(),
                align: numbers.seldom(),
                boundary: numbers.seldom(),
                max_segment: numbers.seldom(),
                max_segments: numbers.seldom(),
                streaming_align: numbers.seldom(),
            };
            let code = xc_device_init(device.as_mut_ptr(), allocator, ptr::null(), &limits, error);
            check(code, error);
            use_device(device.as_mut_ptr(), (memory, bytes), &mut numbers, error);
            let expected = if code == XC_OK { XC_OK } else { XC_ERROR_HANDLE };
            assert_eq!(xc_device_fini(device.as_mut_ptr(), error), expected);
            check(xc_trim(allocator, numbers.next(), ptr::null_mut(), error), error);
            xc_reclaim(allocator, numbers.next());
        }
        assert_eq!(xc_fini(allocator, error), XC_OK);
    }
}

/// # Safety
/// As for [`run`].
unsafe fn use_device(
    device: *mut xc_device,
    (memory, bytes): (*mut u8, u64),
    numbers: &mut Numbers,
    error: *mut xc_error,
) {
    let (mut buffer, mut mapping) = (storage::<xc_buffer>(), storage::<xc_mapping>());
    let (mut pool, mut object) = (storage::<xc_pool>(), storage::<xc_object>());
    let (buffer, mapping) = (buffer.as_mut_ptr(), mapping.as_mut_ptr());
    let (pool, object) = (pool.as_mut_ptr(), object.as_mut_ptr());
    // SAFETY: as for `run`. What is mapped lies in the memory, or is refused because no guest has as much.
    unsafe {
        check(xc_alloc(device, numbers.next(), flags(numbers), ptr::null(), buffer, error), error);
        check(xc_check(buffer, error), error);
        xc_segments(buffer, ptr::null_mut(), numbers.next() as usize);
        check(xc_free(buffer, error), error);

        let config = xc_pool_config {
            name: ptr::null(),
            size: numbers.next(),
            align: numbers.seldom(),
            chunk: numbers.seldom(),
            limit: numbers.seldom(),
            // The model's guest is small, and a pool takes all of it one by one.
            reserve: numbers.next() % 64,
            flags: numbers.seldom() as u32,
            reserved: 0,
        };
        check(xc_pool_init(pool, device, &config, error), error);
        check(xc_pool_alloc(pool, flags(numbers), object, error), error);
        check(xc_pool_free(object, error), error);
        check(xc_pool_fini(pool, error), error);

        xc_max_mapping(device);
        let length = numbers.next();
        let length = if length > bytes { u64::MAX - length % 2 } else { length };
        let code = xc_map(
            device,
            memory.cast(),
            length,
            1 + numbers.seldom() as u32 % 4,
            0,
            mapping,
            error,
        );
        check(code, error);
        xc_map_segments(mapping, ptr::null_mut(), 0);
        check(xc_sync_for_cpu(mapping, numbers.seldom(), numbers.next(), error), error);
        check(xc_sync_for_device(mapping, numbers.next(), numbers.next(), error), error);
        check(xc_unmap(mapping, error), error);
    }
}

fn flags(numbers: &mut Numbers) -> u32 {
    (numbers.seldom() % 4) as u32
}

/// Checks that a refusal has a text that fits 512 bytes.
///
/// # Safety
/// `error` is that of the call that returned `code`.
unsafe fn check(code: c_int, error: *const xc_error) {
    // SAFETY: as for this function.
    let bytes = unsafe { xc_error_text(error, ptr::null_mut(), 0) };
    assert!(bytes < 512 && (code == XC_OK) == (bytes == "no error".len()), "{code}: {bytes} bytes");
}
