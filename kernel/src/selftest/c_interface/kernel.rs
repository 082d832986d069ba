//! The kernel of this image as the platform of the C interface.

use core::ffi::{c_int, c_void};
use core::ptr;

use xen_contig::addr::{Pfn, VirtAddr};
use xen_contig::frames::FrameRun;
use xen_contig::paging::{FrameInUse, GuestMemory, Holder, LinearMapping};
use xen_contig_c::platform::{XC_HOLDER_MAPPING, XC_NO_FRAME, xc_holder, xc_platform};

use crate::layout;
use crate::machine::Machine;

unsafe extern "C" {
    /// In `hypercall.c`.
    fn c_hypercall(context: *mut c_void, number: u32, a: u64, b: u64, c: u64, d: u64) -> i64;
}

/// Returns the platform, which may be used as long as the machine.
pub fn platform(machine: &Machine) -> xc_platform {
    let p2m = machine.p2m.table_address();
    xc_platform {
        size: size_of::<xc_platform>() as u64,
        context: ptr::from_ref(machine).cast_mut().cast(),
        hypercall: Some(c_hypercall),
        p2m: p2m.map_or(ptr::null_mut(), VirtAddr::as_mut_ptr),
        frames: machine.p2m.frames(),
        linear_base: layout::linear(Pfn::new(0)).as_u64(),
        entry: p2m.map(|_| entry as _),
        take: Some(take),
        give: Some(give),
        free_frames: Some(free_frames),
        next_free: None,
        take_at: None,
        purge: Some(purge),
        holder: None,
        zero: None,
        mask: None,
        unmask: None,
    }
}

/// Returns the machine that C received from [`platform`].
///
/// # Safety
/// `context` is that of the platform, and the machine exists.
unsafe fn machine<'m>(context: *mut c_void) -> &'m Machine {
    // SAFETY: `platform` made the context from a machine, which the caller says still exists. Only shared
    // references to it exist.
    unsafe { &*context.cast::<Machine>() }
}

unsafe extern "C" fn entry(context: *mut c_void, frame: u64) -> u64 {
    // SAFETY: the library passes the context of the platform.
    unsafe { machine(context) }.linear.entry(Pfn::new(frame)).get()
}

unsafe extern "C" fn take(context: *mut c_void, frames: u64, align: u64) -> u64 {
    // SAFETY: the library passes the context of the platform.
    let run = unsafe { machine(context) }.frames.lock().take(frames, align);
    run.map_or(XC_NO_FRAME, |run| run.first().number())
}

unsafe extern "C" fn give(context: *mut c_void, first: u64, frames: u64) {
    // SAFETY: the library frees frames that `take` handed out, and no others
    // ([M1](xen_contig::rules#M1)). It passes the context of the platform.
    unsafe { machine(context).give(FrameRun::new(Pfn::new(first), frames)) };
}

unsafe extern "C" fn free_frames(context: *mut c_void) -> u64 {
    // SAFETY: the library passes the context of the platform.
    unsafe { machine(context) }.frames.lock().free_frames()
}

unsafe extern "C" fn purge(
    context: *mut c_void,
    first: u64,
    frames: u64,
    holder: *mut xc_holder,
) -> c_int {
    // SAFETY: the library owns the frames while it asks ([M1](xen_contig::rules#M1)). It passes the context
    // of the platform.
    let purged = unsafe { machine(context).linear.purge(&FrameRun::new(Pfn::new(first), frames)) };
    let Err(FrameInUse { pfn, holder: found }) = purged else { return 0 };
    // SAFETY: `holder` points to a value of the library, which uses it only after this call.
    let holder = unsafe { &mut *holder };
    holder.frame = pfn.number();
    if let Holder::Area { address, .. } | Holder::Leftover { address, .. } = found {
        (holder.kind, holder.value) = (XC_HOLDER_MAPPING, address.as_u64());
    }
    1
}
