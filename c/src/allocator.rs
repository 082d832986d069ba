//! The allocator, and what it reports.

use core::ffi::{c_char, c_int};
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

use xen_contig::dma::{Allocator, Retain};

use crate::error::{Failure, answer, write_text, xc_error};
use crate::handle::{Kind, Slot};
use crate::kernel::Kernel;
use crate::lock::MaskShare;
use crate::platform::xc_platform;

/// The number of words of an allocator.
pub const XC_ALLOCATOR_WORDS: usize = 384;

/// An allocator.
#[repr(C)]
pub struct xc_allocator {
    /// For the library.
    words: [u64; XC_ALLOCATOR_WORDS],
}

/// The result of a trim. All memory is counted in frames.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct xc_trim_report {
    /// Frames that Xen took and replaced.
    pub returned: u64,
    /// Frames that are free memory of the kernel again.
    pub freed: u64,
    /// Frames that Xen refused to take.
    pub set_aside: u64,
    /// Frames that were lost to a failure.
    pub quarantined: u64,
}

/// The number of objects that use another one.
#[derive(Default)]
pub(crate) struct Users(AtomicU64);

impl Users {
    /// Counts a user.
    pub fn add(&self) {
        self.0.fetch_add(1, AcqRel);
    }

    /// Counts one user less.
    pub fn remove(&self) {
        self.0.fetch_sub(1, AcqRel);
    }

    /// Checks that nothing uses the object.
    ///
    /// # Errors
    /// Something does.
    pub fn check_none(&self, kind: &'static str) -> Result<(), Failure> {
        match self.0.load(Acquire) {
            0 => Ok(()),
            users => Err(Failure::InUse { kind, users }),
        }
    }
}

/// The allocator of a C kernel.
pub(crate) struct Guest {
    /// The allocator.
    pub allocator: Allocator<Kernel>,
    /// The devices.
    pub users: Users,
    /// Dropped last, because the allocator uses its lock until then.
    _masking: MaskShare,
}

impl Kind for Guest {
    type Storage = xc_allocator;
    const OFFSET: usize = offset_of!(xc_allocator, words);
    const NAME: &'static str = "xc_allocator";
    const SEAL: u64 = 0x6c1f_03b9_52d7_8ea5;
}

/// Returns the allocator in a caller's storage.
///
/// # Safety
/// As for [`Slot::get`].
pub(crate) unsafe fn guest_in(allocator: *const xc_allocator) -> Result<&'static Guest, Failure> {
    // SAFETY: as for this function.
    unsafe { Slot::<Guest>::get(allocator) }
}

/// Makes the allocator of a kernel.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_init(
    allocator: *mut xc_allocator,
    platform: *const xc_platform,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says, and the platform is true: the function's
    // requirement.
    unsafe {
        answer(error, || {
            let Some(size) = platform.cast::<u64>().as_ref() else {
                return Err(Failure::Null { argument: "xc_platform" });
            };
            // A caller with an older header may have a smaller structure, so its size is checked first.
            if *size != size_of::<xc_platform>() as u64 {
                return Err(Failure::PlatformSize { size: *size });
            }
            Slot::<Guest>::fill(allocator, || {
                let platform = platform.read();
                let kernel = Kernel::new(platform)?;
                let masking = MaskShare::join(platform.mask, platform.unmask)?;
                let allocator = Allocator::new(kernel, Retain::default());
                Ok(Guest { allocator, users: Users::default(), _masking: masking })
            })
            .map(|_| ())
        })
    }
}

/// Ends an allocator and frees its idle memory.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_fini(allocator: *mut xc_allocator, error: *mut xc_error) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement. Nothing uses
    // the allocator, since it counts its users.
    unsafe {
        answer(error, || {
            guest_in(allocator)?.users.check_none(Guest::NAME)?;
            let guest = Slot::<Guest>::take(allocator)?;
            guest.allocator.trim(u64::MAX);
            Ok(())
        })
    }
}

/// Returns idle memory to Xen and to the kernel.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_trim(
    allocator: *const xc_allocator,
    bytes: u64,
    report: *mut xc_trim_report,
    error: *mut xc_error,
) -> c_int {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        answer(error, || {
            let trim = guest_in(allocator)?.allocator.trim(bytes);
            if let Some(trimmed) = report.as_mut() {
                let (returned, freed) = (trim.returned, trim.freed);
                let (set_aside, quarantined) = (trim.set_aside, trim.quarantined);
                *trimmed = xc_trim_report { returned, freed, set_aside, quarantined };
            }
            trim.error.map_or(Ok(()), |error| Err(Failure::Alloc(error.into())))
        })
    }
}

/// Makes idle memory free memory of the kernel.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_reclaim(allocator: *const xc_allocator, frames: u64) -> u64 {
    // SAFETY: the pointer is null or names what its type says: the function's requirement.
    unsafe { guest_in(allocator).map_or(0, |guest| guest.allocator.reclaim(frames)) }
}

/// Writes which contiguous memory this domain can get.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_capability_text(
    allocator: *const xc_allocator,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe {
        let capability = guest_in(allocator).map(|guest| guest.allocator.capability());
        write_text(buffer, size, capability)
    }
}

/// Writes the figures of an allocator.
///
/// # Safety
/// As `xen_contig.h` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xc_report_text(
    allocator: *const xc_allocator,
    buffer: *mut c_char,
    size: usize,
) -> usize {
    // SAFETY: each pointer is null or names what its type says: the function's requirement.
    unsafe { write_text(buffer, size, guest_in(allocator).map(Report)) }
}

/// The figures of an allocator, a line for each subject.
struct Report<'g>(&'g Guest);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allocator = &self.0.allocator;
        let stats = allocator.stats();
        writeln!(
            f,
            "buffers: {} from the reserve, {} of free memory as it was, {} by an exchange",
            stats.from_reserve, stats.adopted, stats.exchanged
        )?;
        writeln!(
            f,
            "frames: {} idle, {} for records, {} lent to the kernel, {} set aside, {} in quarantine",
            stats.idle,
            stats.records,
            stats.lent,
            stats.set_aside,
            allocator.platform().accounts().quarantined()
        )?;
        write!(f, "returned to Xen: {} frames, {} refusals", stats.returned, stats.refusals)
    }
}
