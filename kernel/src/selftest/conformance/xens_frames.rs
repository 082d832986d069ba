//! [C29](xen_contig::conformance#C29): frames of Xen's that Xen shares with the domain.
//!
//! Xen answers `EINVAL` for any bad frame, so the tests first prove that the frame is the one that they
//! name.

use alloc::vec::Vec;

use hypercall::DomId;
use xen_contig::addr::Gfn;
use xen_contig::frames::FrameRun;

use super::frames::bad_frame;
use super::m2p;
use super::raw::{self, NOWHERE, pv_only};
use super::start_info::StartInfo;
use crate::guest::guest;
use crate::layout::{READ_WRITE, slot, window};
use crate::machine::word;
use crate::selftest::owned::OwnedRun;
use crate::selftest::{Check, Test, TestContext, error, fail, skip};

/// `GNTTABOP_setup_table` (`public/grant_table.h`).
const SETUP_TABLE: u64 = 2;

/// The index of the last word of a page.
const LAST_WORD: usize = 511;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("c29-shared-info", shared_info).needs_order(2));
    tests.push(Test::new("c29-grant-table", grant_table).needs_order(2));
}

/// Maps a frame of Xen's that Xen shares with this domain, and calls `see` with its address.
///
/// Xen refuses this for every other frame that does not belong to the domain, so a mapping proves
/// that the frame is what the caller thinks.
fn through_window(what: &str, mfn: u64, see: impl FnOnce(*mut u64) -> Check) -> Check {
    if let Err(errno) = guest().set_window(NOWHERE, Some((Gfn::new(mfn), READ_WRITE))) {
        fail!("mfn {mfn:#x} is not the {what}, because Xen refuses to map it: {errno}");
    }
    let seen = see(window(NOWHERE).as_mut_ptr());
    if let Err(errno) = guest().set_window(NOWHERE, None) {
        error!("removing the mapping of the {what}: {errno}");
    }
    seen
}

/// Checks that a frame of Xen's is refused, and that it stays what it was.
fn xens_frame(
    context: &TestContext<'_>,
    what: &str,
    mfn: u64,
    see: impl Fn(*mut u64) -> Check,
) -> Check {
    if let Some(pfn) = m2p::get(context.machine, mfn) {
        fail!("mfn {mfn:#x} is not the {what}: the M2P assigns it to pfn {pfn:#x}");
    }
    through_window(what, mfn, &see)?;
    bad_frame(context, what, mfn)?;
    through_window(what, mfn, &see)
}

fn shared_info(context: &TestContext<'_>) -> Check {
    pv_only(context)?;
    let Some(info) = StartInfo::find(context.machine) else { error!("no start info") };
    let mfn = info.shared_info >> 12;
    xens_frame(context, "shared_info", mfn, |page| {
        let known = window(slot::SHARED_INFO).as_mut_ptr::<u64>();
        for mark in [0xc29, 0] {
            // SAFETY: both pages are mapped. `struct shared_info` ends before the last word of its
            // page, so nothing else uses this word.
            let found = unsafe {
                known.add(LAST_WORD).write_volatile(mark);
                page.add(LAST_WORD).read_volatile()
            };
            if found != mark {
                fail!(
                    "mfn {:#x} is not shared_info: its last word is {found:#x}, expected {mark:#x}",
                    mfn
                );
            }
        }
        Ok(())
    })
}

fn grant_table(context: &TestContext<'_>) -> Check {
    /// `struct gnttab_setup_table` (`public/grant_table.h`).
    #[repr(C)]
    struct SetupTable {
        domid: DomId,
        nr_frames: u32,
        status: i16,
        frame_list: *mut u64,
    }
    pv_only(context)?;
    let mut frame = 0_u64;
    let mut setup =
        SetupTable { domid: DomId::SELF, nr_frames: 1, status: -1, frame_list: &raw mut frame };
    let args = [SETUP_TABLE, &raw mut setup as u64, 1, 0, 0, 0];
    // SAFETY: Xen writes one frame number and the status.
    let answer = unsafe { raw::call(xen_sys::__HYPERVISOR_grant_table_op, args) };
    // SAFETY: both variables are alive. Xen has written to them, so the reads are volatile.
    let (status, frame) =
        unsafe { ((&raw const setup.status).read_volatile(), (&raw const frame).read_volatile()) };
    if answer.is_err() || status != 0 || frame == 0 {
        skip!("the domain has no grant table: {answer:?}, status {status}");
    }
    let shared_info = StartInfo::find(context.machine).map(|info| info.shared_info >> 12);
    if shared_info == Some(frame) {
        fail!("mfn {frame:#x} is the page shared_info, not the grant table");
    }
    let [source, target] = [(); 2].map(|()| OwnedRun::take(context.machine, 1));
    let (source, target) = (source?, target?);
    xens_frame(context, "grant table", frame, |table| {
        // A domU does not know its own number, and Xen lets it map no frame that it does not share
        // with it. dom0 can map other frames too, so it proves more.
        if context.machine.initial_domain {
            grants(context, table, &source, &target)?;
        }
        Ok(())
    })
}

/// Checks that dom0 can copy by a grant that it writes to the table.
fn grants(
    context: &TestContext<'_>,
    table: *mut u64,
    source: &FrameRun,
    target: &FrameRun,
) -> Check {
    /// A reference that the toolstack does not reserve (`GNTTAB_NR_RESERVED_ENTRIES`).
    const REFERENCE: u32 = 8;
    /// `GNTTABOP_copy` and `GNTCOPY_source_gref` (`public/grant_table.h`).
    const COPY: u64 = 5;
    const SOURCE_IS_GRANTED: u16 = 1;
    /// `GTF_permit_access` with `GTF_readonly`, for domain 0.
    const READABLE: u64 = 1 | 4;
    /// One end of a copy: a reference or a machine frame, its domain, and an offset.
    #[repr(C)]
    struct End(u64, DomId, u16);
    /// `struct gnttab_copy`.
    #[repr(C)]
    struct Copy {
        source: End,
        target: End,
        len: u16,
        flags: u16,
        status: i16,
    }
    let (first, second) = (source.first(), target.first());
    let (Some(from), Some(to)) = (context.machine.p2m.mfn(first), context.machine.p2m.mfn(second))
    else {
        fail!("the frame allocator handed out a frame without memory")
    };
    // SAFETY: the frames belong to this test, and the table is mapped. An entry has 8 bytes.
    unsafe {
        word(first, 0).write_volatile(context.seed | 1);
        word(second, 0).write_volatile(0);
        table.add(REFERENCE as usize).write_volatile(from.number() << 32 | READABLE);
    }
    let mut copy = Copy {
        source: End(REFERENCE.into(), DomId::SELF, 0),
        target: End(to.number(), DomId::SELF, 0),
        len: 8,
        flags: SOURCE_IS_GRANTED,
        status: 0,
    };
    let args = [COPY, &raw mut copy as u64, 1, 0, 0, 0];
    // SAFETY: Xen writes 8 bytes of the target, which belongs to this test, and the status.
    let answer = unsafe { raw::call(xen_sys::__HYPERVISOR_grant_table_op, args) };
    // SAFETY: the table is mapped, the target belongs to this test, and Xen has written the status.
    let (copied, status) = unsafe {
        table.add(REFERENCE as usize).write_volatile(0);
        (word(second, 0).read_volatile(), (&raw const copy.status).read_volatile())
    };
    if copied != context.seed | 1 {
        fail!(
            "the frame is not the grant table: a copy by a grant in it returned {answer:?}, status \
             {status}"
        );
    }
    Ok(())
}
