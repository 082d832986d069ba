//! Booting a PV guest, on the page tables of the domain builder.

use arrayvec::ArrayVec;
use core::slice;
use core::sync::atomic::AtomicU64;

use hypercall::abi::memory::MachphysMapping;
use hypercall::ops::{MemoryOp, Port, SegmentBase};
use hypercall::{VirtAddr, Xen};
use pvh_boot::start_info::{PvConsole, PvStartInfo};
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::{M2p, P2m};
use xen_sys::start_info as xen_sys_start_info;

use super::guest::PV;
use super::paging::{self, BootTables, TableRegion};
use super::start_info::StartInfoPage;
use super::traps;
use crate::boot::{BootState, CUT_AFTER, CommandLine};
use crate::console::{self, ConsoleQueue};
use crate::exit::crash;
use crate::layout::{self, KERNEL_BASE, image_frame};
use crate::paging::Linear;
use crate::traps::try_read;
use crate::vcpu::xen;
use crate::{guest, shared_page, vcpu};

/// Boots from the state that the domain builder leaves to the state that the common part expects.
pub fn boot(start_info: *const xen_sys_start_info) -> BootState {
    guest::choose(&PV);
    adopt_first_vcpu();
    traps::init();
    let m2p = machine_to_phys();
    // SAFETY: Xen passes the address of the page that contains the start info. The builder maps the
    // page, and nothing has changed it. The readers check the contents.
    let raw = unsafe { &*start_info };
    // The console comes first, so that every later error can be printed.
    let ring = console_ring(raw, &m2p);
    let info = match PvStartInfo::read(raw) {
        Ok(info) => info,
        Err(error) => panic!("start info: {error}"),
    };
    let boot_p2m = boot_p2m(&info);

    // Everything that the builder placed follows the image (public/xen.h, "Start-of-day memory
    // layout"): the module, the P2M, start info and shared pages, page tables, stack.
    let at = |address: u64| image_frame(address).number();
    let p2m_end = at(info.mfn_list) + (info.nr_pages * 8).div_ceil(PAGE_SIZE as u64);
    let tables_end = at(info.pt_base) + info.nr_pt_frames;
    let ring_end = ring.map_or(0, |pfn| pfn.number() + 1);
    let info_end = at(start_info as u64) + 1;
    // One more page is added for the builder's stack, which lies at the end.
    let used_end = [p2m_end, tables_end, ring_end, info_end].into_iter().fold(0, u64::max) + 1;

    let boot_tables = BootTables::new(info.pt_base, m2p);
    let boot_mapped_end = boot_tables.mapped_end();
    let tables = TableRegion::plan(info.nr_pages, boot_mapped_end.max(used_end));
    let builders = at(info.pt_base)..tables_end;
    let level1 = paging::build(&boot_p2m, &tables, &boot_tables, builders);

    // The P2M is the builder's list, now through the linear mapping.
    let p2m = || p2m_at(layout::linear(image_frame(info.mfn_list)).as_ptr(), info.nr_pages);
    let linear = Linear::pv(p2m(), level1);
    if let Some(pfn) = ring {
        // SAFETY: the linear mapping maps the frame of the ring writable, for good.
        unsafe { console::move_ring(layout::linear(pfn).as_mut_ptr()) };
    }
    let command_line = CommandLine::new(info.cmd_line, Some(CUT_AFTER));
    paging::drop_boot_mapping(&p2m(), boot_mapped_end);

    let shared = Gfn::new(info.shared_info / PAGE_SIZE as u64);
    if let Err(errno) = shared_page::map(shared) {
        panic!("mapping the shared page, mfn {shared}: {errno}");
    }

    let rings = [ring.map(|pfn| (pfn, "console ring")), store_ring(&info, &m2p)];
    let rings = rings.into_iter().flatten().collect();
    let image_start = image_frame(layout::image().text.0).number();
    let mut others = ArrayVec::new();
    others.push((0, image_start));
    others.push((used_end, tables.first()));
    let start_info = image_frame(start_info as u64);
    // SAFETY: this is the frame of the start info. The linear mapping maps it, and it does not
    // belong to the frames that are handed over as unused.
    PV.set_start_info(unsafe { StartInfoPage::new(start_info, p2m(), m2p) });
    BootState {
        command_line,
        initial_domain: info.flags.initial_domain(),
        p2m: p2m(),
        m2p: Some(m2p),
        start_info: Some(start_info),
        linear,
        area_tables: Some(Pfn::new(tables.areas())),
        memory: info.nr_pages,
        unbacked: Ok(0),
        shared: rings,
        spare: (tables.end(), info.nr_pages),
        others,
    }
}

/// Sets the GS base of the first vCPU, by which it finds its data.
fn adopt_first_vcpu() {
    let first = vcpu::boot();
    // SAFETY: nothing uses GS before this.
    if unsafe { first.xen.set_segment_base(SegmentBase::GsKernel(first.gs_base())) }.is_err() {
        // A panic needs the GS base too.
        crash();
    }
    first.list();
}

/// Asks Xen where its M2P is.
fn machine_to_phys() -> M2p {
    let mut mapping = MachphysMapping::default();
    // SAFETY: Xen writes the structure, which is borrowed for the call.
    match unsafe { xen().memory_op(MemoryOp::MachphysMapping(&mut mapping)) } {
        // SAFETY: Xen reports that its M2P is there, and that it has entries up to `max_mfn`.
        Ok(_) => unsafe { M2p::new(mapping.v_start as *const u64, mapping.max_mfn) },
        Err(errno) => panic!("XENMEM_machphys_mapping: {errno}"),
    }
}

fn boot_p2m(info: &PvStartInfo<'_>) -> P2m<'static> {
    p2m_at(info.mfn_list as *const AtomicU64, info.nr_pages)
}

/// Returns the builder's list of machine frames at `list` as a P2M.
fn p2m_at(list: *const AtomicU64, frames: u64) -> P2m<'static> {
    // SAFETY: the builder wrote `frames` entries there, and the reader checked that the list lies
    // within the memory that the builder mapped. The frames of the list are never freed, and all
    // accesses are atomic. The list names the machine frame that backs each frame, and only the
    // library writes to it ([M4](xen_contig::rules#M4)).
    unsafe { P2m::table(slice::from_raw_parts(list, frames as usize)) }
}

/// Returns the frame of the xenstore ring.
fn store_ring(info: &PvStartInfo<'_>, m2p: &M2p) -> Option<(Pfn, &'static str)> {
    if info.store_mfn == 0 {
        return None;
    }
    // SAFETY: the ring lies in a frame of this domain, which is RAM.
    let pfn = unsafe { m2p.pfn(Mfn::new(info.store_mfn)) }?;
    Some((pfn, "xenstore ring"))
}

/// Sets up the console ring of a domU at its boot address and returns its frame.
fn console_ring(raw: &xen_sys_start_info, m2p: &M2p) -> Option<Pfn> {
    let Ok(PvConsole::DomU { mfn, evtchn }) = PvConsole::read(raw) else { return None };
    // SAFETY: the ring lies in a frame of this domain, which is RAM.
    let pfn = unsafe { m2p.pfn(Mfn::new(mfn)) }.filter(|pfn| pfn.number() < raw.nr_pages)?;
    let page = VirtAddr::try_new(KERNEL_BASE + pfn.number() * PAGE_SIZE as u64).ok()?;
    // No other field has been checked, so a wrong number is possible.
    try_read(page).ok()?;
    // SAFETY: the builder maps the ring with everything that it placed. Later `boot` moves the ring
    // to the linear mapping, before it removes the builder's mapping.
    console::use_ring(unsafe { ConsoleQueue::new(page.as_mut_ptr(), Port(evtchn)) });
    Some(pfn)
}
