//! Booting as a PV guest, on the page tables of the domain builder.

use arrayvec::ArrayVec;
use core::slice;
use core::sync::atomic::AtomicU64;

use hypercall::Xen;
use hypercall::abi::memory::MachphysMapping;
use hypercall::ops::{MemoryOp, Port};
use pvh_boot::start_info::{PvConsole, PvStartInfo};
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::{M2p, P2m};
use xen_sys::start_info as xen_sys_start_info;

use super::{CommandLine, Ground};
use crate::console::{self, Ring};
use crate::hypervisor::xen;
use crate::kind::Kind;
use crate::layout::{self, KERNEL_BASE, image_frame};
use crate::paging::Linear;
use crate::paging::pv::{self as paging, BootTables, Tables};
use crate::{events, traps};

/// Takes the domain from the builder's state to the kernel's.
pub fn start(start_info: *const xen_sys_start_info) -> (Ground, CommandLine) {
    // SAFETY: Xen passes the address of the page that holds it, mapped and left alone since; the
    // reader judges what it says.
    let info = match PvStartInfo::read(unsafe { &*start_info }) {
        Ok(info) => info,
        Err(error) => panic!("start info: {error}"),
    };
    traps::pv::init();

    let m2p = machine_to_phys();
    let boot_p2m = boot_p2m(&info);
    let ring = console_ring(&info, &m2p);

    // All that the builder placed lies in a row behind the image (public/xen.h, "Start-of-day
    // memory layout"): the module, the P2M, start info and shared pages, page tables, stack.
    let at = |address: u64| image_frame(address).number();
    let p2m_end = at(info.mfn_list) + (info.nr_pages * 8).div_ceil(PAGE_SIZE as u64);
    let tables_end = at(info.pt_base) + info.nr_pt_frames;
    let ring_end = ring.map_or(0, |(pfn, _)| pfn.number() + 1);
    let info_end = at(start_info as u64) + 1;
    // One more for the stack that the builder gives, which lies behind everything.
    let used_end = [p2m_end, tables_end, ring_end, info_end].into_iter().fold(0, u64::max) + 1;

    let boot_tables = BootTables::new(info.pt_base, m2p);
    let boot_mapped_end = boot_tables.mapped_end();
    let tables = Tables::plan(info.nr_pages, boot_mapped_end.max(used_end));
    let builders = at(info.pt_base)..tables_end;
    let level1 = paging::build(&boot_p2m, &tables, &boot_tables, builders);

    // The same table as before, now through the linear mapping.
    let p2m = || p2m_at(layout::linear(image_frame(info.mfn_list)).as_ptr(), info.nr_pages);
    let (p2m, linear) = (p2m(), Linear::pv(p2m(), level1));
    if let Some((pfn, _)) = ring {
        // SAFETY: the linear mapping maps the console page like every frame.
        unsafe { console::move_ring(layout::linear(pfn).as_mut_ptr()) };
    }
    let command_line = copy(info.cmd_line);
    paging::drop_boot_mapping(&p2m, boot_mapped_end);

    let shared = Gfn::new(info.shared_info / PAGE_SIZE as u64);
    if let Err(errno) = events::map(Kind::Pv, shared) {
        panic!("mapping the shared page, mfn {shared}: {errno}");
    }

    let rings = [ring.map(|(pfn, _)| (pfn, "console ring")), store_ring(&info, &m2p)];
    let rings = rings.into_iter().flatten().collect();
    let image_start = image_frame(layout::image().text.0).number();
    let mut others = ArrayVec::new();
    others.push((0, image_start));
    others.push((used_end, tables.first()));
    let ground = Ground {
        kind: Kind::Pv,
        initial_domain: info.flags.initial_domain(),
        p2m,
        m2p: Some(m2p),
        start_info: Some(image_frame(start_info as u64)),
        shared_page: None,
        linear,
        area_tables: Some(Pfn::new(tables.areas())),
        shared: rings,
        spare: (tables.end(), info.nr_pages),
        others,
    };
    (ground, command_line)
}

fn copy(text: &str) -> CommandLine {
    CommandLine::from(text).unwrap_or_default()
}

/// Where Xen's machine-to-physical table is.
fn machine_to_phys() -> M2p {
    let mut mapping = MachphysMapping::default();
    // SAFETY: Xen fills the structure.
    match unsafe { xen().memory_op(MemoryOp::MachphysMapping(&mut mapping)) } {
        // SAFETY: this is what XENMEM_machphys_mapping answered.
        Ok(_) => unsafe { M2p::new(mapping.v_start as *const u64, mapping.max_mfn) },
        Err(errno) => panic!("XENMEM_machphys_mapping: {errno}"),
    }
}

fn boot_p2m(info: &PvStartInfo<'_>) -> P2m<'static> {
    p2m_at(info.mfn_list as *const AtomicU64, info.nr_pages)
}

/// The builder's list of machine frames as a P2M.
fn p2m_at(list: *const AtomicU64, frames: u64) -> P2m<'static> {
    // SAFETY: the builder wrote `frames` entries there, the reader checked that the list lies
    // within the memory that it mapped, and the frames of the list are never freed. Both mappings
    // of it are only accessed atomically. They say which machine frame backs each frame, and the
    // kernel writes to none but those of frames that it owns ([M4](xen_contig::rules#M4)).
    unsafe { P2m::table(slice::from_raw_parts(list, frames as usize)) }
}

/// Which frame the builder made the xenstore ring of.
fn store_ring(info: &PvStartInfo<'_>, m2p: &M2p) -> Option<(Pfn, &'static str)> {
    if info.store_mfn == 0 {
        return None;
    }
    // SAFETY: the page is a frame of this domain, so it is RAM.
    let pfn = unsafe { m2p.pfn(Mfn::new(info.store_mfn)) }?;
    Some((pfn, "xenstore ring"))
}

/// Sets up the console ring of a domU at its boot address. Returns its frame.
fn console_ring(info: &PvStartInfo<'_>, m2p: &M2p) -> Option<(Pfn, Port)> {
    let PvConsole::DomU { mfn, evtchn } = info.console else { return None };
    // SAFETY: the console page is a frame of this domain, so it is RAM.
    let pfn = unsafe { m2p.pfn(Mfn::new(mfn)) }.filter(|pfn| pfn.number() < info.nr_pages)?;
    let page = (KERNEL_BASE + pfn.number() * PAGE_SIZE as u64) as *mut _;
    let port = Port(evtchn);
    // SAFETY: the builder maps the console page with everything that it placed.
    console::use_ring(unsafe { Ring::new(page, port) });
    Some((pfn, port))
}
