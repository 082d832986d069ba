//! Pools of objects of one size.

use core::ffi::{c_char, c_int, c_void};
use core::mem::offset_of;
use core::ptr;

use xen_contig::dma::{Pool, PoolConfig, PoolObject, Zeroing};

use crate::allocator::Users;
use crate::device::{Device, XC_NO_SLEEP, device_in, xc_device};
use crate::error::{Failure, answer, write_text, xc_error};
use crate::handle::{Kind, Slot};
use crate::kernel::Kernel;
use crate::text;

/// Objects keep what their previous user or the device wrote.
pub const XC_NOT_ZEROED: u32 = 2;

/// The number of words of a pool.
pub const XC_POOL_WORDS: usize = 64;

/// The number of words of an object.
pub const XC_OBJECT_WORDS: usize = 24;

/// What a pool makes. 0 stands for the default.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct xc_pool_config {
    /// The name of the pool.
    pub name: *const c_char,
    /// Bytes of an object.
    pub size: u64,
    /// The alignment of each object's address.
    pub align: u64,
    /// The least number of bytes that are allocated at a time.
    pub chunk: u64,
    /// The most objects.
    pub limit: u64,
    /// Objects that are available after a refill.
    pub reserve: u64,
    /// `XC_NOT_ZEROED` or 0.
    pub flags: u32,
    /// For later versions.
    pub reserved: u32,
}

/// A pool.
#[repr(C)]
pub struct xc_pool {
    /// For the library.
    words: [u64; XC_POOL_WORDS],
}

/// An object of a pool.
#[repr(C)]
pub struct xc_object {
    /// The first byte for the processor.
    pub memory: *mut c_void,
    /// The first byte for the device.
    pub device_address: u64,
    /// The number of bytes.
    pub bytes: u64,
    /// For the library.
    words: [u64; XC_OBJECT_WORDS],
}

/// A pool of a C driver.
struct Objects {
    pool: Pool<'static, Kernel>,
    device: &'static Device,
    /// Its objects in use.
    users: Users,
}

impl Kind for Objects {
    type Storage = xc_pool;
    const OFFSET: usize = offset_of!(xc_pool, words);
    const NAME: &'static str = "xc_pool";
    const SEAL: u64 = 0xd4b6_18f2_7390_ea5c;
}

/// An object of a C driver.
struct Object {
    memory: PoolObject<'static, Kernel>,
    owner: &'static Objects,
}

impl Kind for Object {
    type Storage = xc_object;
    const OFFSET: usize = offset_of!(xc_object, words);
    const NAME: &'static str = "xc_object";
    const SEAL: u64 = 0x580c_e7a1_bd24_963f;
}

/// Converts a configuration, in which 0 stands for the default.
///
/// # Safety
/// The name is null, or text that stays as long as the pool and its errors are used.
unsafe fn configuration(config: &xc_pool_config) -> Result<PoolConfig, Failure> {
    let zeroing = match config.flags {
        0 => Zeroing::Zeroed,
        XC_NOT_ZEROED => Zeroing::Whatever,
        flags => return Err(Failure::UnknownFlags { flags, known: XC_NOT_ZEROED }),
    };
    // SAFETY: as for this function.
    let name = unsafe { text::name(config.name, "unnamed") };
    let mut builder = PoolConfig::builder(name, config.size)
        .chunk(config.chunk)
        .reserve(config.reserve)
        .zeroing(zeroing);
    if config.align > 0 {
        builder = builder.align(config.align);
    }
    if config.limit > 0 {
        builder = builder.limit(config.limit);
    }
    Ok(builder.build()?)
}

/// Makes a pool.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_init(
    pool: *mut xc_pool,
    device: *const xc_device,
    config: *const xc_pool_config,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. The device
    // stays while it has users.
    unsafe {
        answer(error, || {
            let device = device_in(device)?;
            let Some(config) = config.as_ref() else {
                return Err(Failure::Null { argument: "xc_pool_config" });
            };
            Slot::<Objects>::fill(pool, || {
                let config = configuration(config)?;
                let pool = Pool::new(&device.device, config)?;
                device.users.add();
                Ok(Objects { pool, device, users: Users::default() })
            })
            .map(|_| ())
        })
    }
}

/// Ends a pool.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_fini(pool: *mut xc_pool, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. Nothing uses
    // the pool, since it counts its objects.
    unsafe {
        answer(error, || {
            Slot::<Objects>::get(pool)?.users.check_none(Objects::NAME)?;
            let Objects { pool, device, .. } = Slot::<Objects>::take(pool)?;
            drop(pool);
            device.users.remove();
            Ok(())
        })
    }
}

/// Allocates an object.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_alloc(
    pool: *const xc_pool,
    flags: u32,
    object: *mut xc_object,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. The pool stays
    // while it has users. `fill` has refused a null or misaligned `object` before its members are written.
    unsafe {
        answer(error, || {
            let owner = Slot::<Objects>::get(pool)?;
            let made = Slot::<Object>::fill(object, || {
                let memory = match flags {
                    0 => owner.pool.alloc()?,
                    XC_NO_SLEEP => owner.pool.alloc_atomic()?,
                    flags => return Err(Failure::UnknownFlags { flags, known: XC_NO_SLEEP }),
                };
                owner.users.add();
                Ok(Object { memory, owner })
            })?;
            (*object).memory = made.memory.as_ptr().as_ptr().cast();
            (*object).device_address = made.memory.dma_addr().get();
            (*object).bytes = made.memory.len();
            Ok(())
        })
    }
}

/// Frees an object.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_free(object: *mut xc_object, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. `take`
    // has refused a null or misaligned `object` before a member is written.
    unsafe {
        answer(error, || {
            let Object { memory, owner } = Slot::<Object>::take(object)?;
            drop(memory);
            owner.users.remove();
            (*object).memory = ptr::null_mut();
            Ok(())
        })
    }
}

/// Allocates objects until the reserve is available.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_refill(pool: *const xc_pool, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        answer(error, || {
            Slot::<Objects>::get(pool)?.pool.refill()?;
            Ok(())
        })
    }
}

/// Returns 1 if fewer objects are available than the reserve has.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_is_low(pool: *const xc_pool) -> c_int {
    // SAFETY: the pointer is null or names what its type says: the function's requirement.
    unsafe { Slot::<Objects>::get(pool).is_ok_and(|owner| owner.pool.is_low()).into() }
}

/// Checks that the objects have the addresses that the device received.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_check(pool: *const xc_pool, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe { answer(error, || Ok(Slot::<Objects>::get(pool)?.pool.check_in_place()?)) }
}

/// Writes how many objects and frames a pool has.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_pool_text(
    pool: *const xc_pool,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        let statistics = Slot::<Objects>::get(pool).map(|owner| owner.pool.statistics());
        write_text(buffer, size, statistics)
    }
}
