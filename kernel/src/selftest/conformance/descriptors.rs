//! [C31](xen_contig::conformance#C31): frames that contain the descriptors of a PV vCPU.

use alloc::vec::Vec;

use hypercall::{DomId, XenErrno};
use xen_contig::addr::Pfn;

use super::raw::{self, Specimen, pv_only};
use crate::layout::{READ, READ_WRITE, linear};
use crate::machine::word;
use crate::selftest::{Check, Test, TestContext, error};

/// The number of entries of a page of descriptors.
const DESCRIPTORS: u64 = 512;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c31-global-descriptors", global_descriptors));
    tests.push(Test::new("c31-local-descriptors", local_descriptors));
}

fn global_descriptors(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let mut specimen = Specimen::take(context, 1)?;
    specimen.map_one(0, Some(READ_WRITE))?;
    let page = Pfn::new(specimen.pfns()[0]);
    for index in 0..DESCRIPTORS as usize {
        // SAFETY: the specimen owns the frame, which is mapped. Null descriptors are valid.
        unsafe { word(page, index).write_volatile(0) };
    }
    specimen.map_one(0, None)?;
    let mfn = specimen.gfns()[0];
    specimen.replace(0, mfn);
    let frames = [mfn];
    let set = |entries| {
        let args = [frames.as_ptr() as u64, entries, 0, 0, 0, 0];
        // SAFETY: the kernel uses Xen's own flat segments, which do not depend on the table.
        unsafe { raw::call(xen_sys::__HYPERVISOR_set_gdt, args) }
    };
    let loaded = set(DESCRIPTORS);
    // SAFETY: this is an ordinary exchange of a frame that contains null descriptors.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    let unloaded = set(0);
    specimen.settle(&attempt)?;
    if let (Err(errno), _) | (_, Err(errno)) = (loaded, unloaded) {
        error!("set_gdt: {errno}");
    }
    attempt.refused("in the GDT", XenErrno::EINVAL, 0)
}

/// Checks a frame of the LDT. Xen references it only when a descriptor in it is first used.
fn local_descriptors(context: &TestContext<'_>) -> Check {
    /// `struct mmuext_op` (`public/xen.h`), as this command fills it.
    #[repr(C)]
    struct SetLdt {
        cmd: u32,
        address: u64,
        entries: u64,
    }
    pv_only(context)?;
    let mut specimen = Specimen::take(context, 1)?;
    specimen.map_one(0, Some(READ_WRITE))?;
    let page = Pfn::new(specimen.pfns()[0]);
    for index in 0..DESCRIPTORS as usize {
        // SAFETY: the specimen owns the frame, which is mapped. Each entry is a flat, readable data
        // segment.
        unsafe { word(page, index).write_volatile(0x00cf_f300_0000_ffff) };
    }
    let mfn = specimen.gfns()[0];
    specimen.replace(0, mfn);
    // A writable page cannot contain descriptors.
    specimen.map_one(0, Some(READ))?;
    let set = |entries| {
        let address = linear(page).as_u64();
        let op = SetLdt { cmd: xen_sys::MMUEXT_SET_LDT, address, entries };
        let args = [&raw const op as u64, 1, 0, u64::from(DomId::SELF.0), 0, 0];
        // SAFETY: no segment register of the kernel selects a local descriptor.
        unsafe { raw::call(xen_sys::__HYPERVISOR_mmuext_op, args) }
    };
    let loaded = set(DESCRIPTORS);
    // SAFETY: the instruction only reads the rights of local descriptor 1.
    let used = loaded.is_ok()
        && unsafe {
            let found: u8;
            core::arch::asm!(
                "lar {rights:e}, {selector:e}",
                "setz {found}",
                rights = out(reg) _,
                selector = in(reg) 1_u32 << 3 | 1 << 2 | 3,
                found = lateout(reg_byte) found,
                options(nostack),
            );
            found == 1
        };
    if let Err(outcome) = specimen.map_one(0, None) {
        let _ignored = set(0);
        return Err(outcome);
    }
    // SAFETY: this is an ordinary exchange of a frame that contains descriptors.
    let attempt = unsafe { specimen.attempt(0, 0, |_| ()) };
    let unloaded = set(0);
    specimen.settle(&attempt)?;
    if let (Err(errno), _) | (_, Err(errno)) = (loaded, unloaded) {
        error!("MMUEXT_SET_LDT: {errno}");
    }
    if !used {
        error!("the processor could not read the local descriptor");
    }
    attempt.refused("in the LDT", XenErrno::EINVAL, 0)
}
