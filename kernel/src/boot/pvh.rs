//! Booting as a PVH guest, from the page tables of the entry.

use arrayvec::ArrayVec;

use hypercall::abi::memory::{AddToPhysmap, E820Entry, MemoryMap, XENMAPSPACE_SHARED_INFO};
use hypercall::ops::{HvmOp, HvmParamIndex, MemoryOp, Port};
use hypercall::{DomId, Xen, XenErrno};
use pvh_boot::layout::{BOOT_MAPPED, KERNEL_BASE};
use pvh_boot::page_tables::boot_memory;
use pvh_boot::start_info::pvh::MAX_REGIONS;
use pvh_boot::start_info::{MemoryKind, MemoryRegion, PvhStartInfo, memory_map};
use x86_64::registers::model_specific::Msr;
use xen_contig::addr::{Gfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::P2m;

use super::{CommandLine, Ground};
use crate::console::{self, Ring};
use crate::hypervisor::{untraced, xen};
use crate::kind::Kind;
use crate::layout::{self, slot};
use crate::paging::Linear;
use crate::paging::pvh::Builder;
use crate::{events, traps};

const PAGE: u64 = PAGE_SIZE as u64;

/// Firmware, tables and video live below; the kernel leaves it alone.
const LOW_MEMORY: u64 = 1 << 20;

/// Takes the domain from the entry's state to the kernel's.
pub fn start(start_info: u32) -> (Ground, CommandLine) {
    console::use_debug_port();
    traps::pvh::init();
    install_hypercall_page();

    // SAFETY: the entry's page tables are in force, and nothing writes to memory outside the image
    // before all that the reader returns has been copied below.
    let read = PvhStartInfo::read(start_info, |start, len| unsafe { boot_memory(start, len) });
    let info = match read {
        Ok(info) => info,
        Err(error) => panic!("start info: {error}"),
    };
    let command_line = CommandLine::from(info.cmd_line).unwrap_or_default();
    let initial_domain = info.flags.initial_domain();
    let map = match info.memory_map.is_empty() {
        // Xen gives a PVH dom0 no map with the start info (4.17, `pvh_load_kernel`).
        true => memory_map_of_xen(),
        false => info.memory_map.clone(),
    };
    let ram: ArrayVec<(u64, u64), MAX_REGIONS> = map
        .iter()
        .filter(|region| region.kind == MemoryKind::Ram)
        .map(|region| (region.start.next_multiple_of(PAGE), region.end() / PAGE * PAGE))
        .filter(|(start, end)| start < end)
        .collect();
    assert!(!ram.is_empty(), "the memory map names no RAM in its {} regions", map.len());

    // What the kernel may use: RAM above the low MiB, without the image. The start info and what
    // belongs to it is in there, too, but was copied above.
    let image = layout::image();
    let image = (image.text.0 - KERNEL_BASE, image.data.1 - KERNEL_BASE);
    let mut free: ArrayVec<(u64, u64), 160> = ArrayVec::new();
    for &(start, end) in &ram {
        for (start, end) in [(start, end.min(image.0)), (start.max(image.1), end)] {
            let start = start.max(LOW_MEMORY);
            if start < end && !free.is_full() {
                free.push((start, end));
            }
        }
    }
    let below = |(start, end): (u64, u64)| end.min(BOOT_MAPPED).saturating_sub(start);
    let Some(largest) = (0..free.len()).max_by_key(|index| below(free[*index])) else {
        panic!("start info: no RAM above the first MiB beside the image");
    };
    let (start, end) = free[largest];

    let mut builder = Builder::new(start..end.min(BOOT_MAPPED));
    for &(start, end) in &ram {
        assert!(end <= layout::LINEAR_FRAMES * PAGE, "RAM up to {end:#x} is too high to map");
        builder.map_linear(start..end);
    }
    builder.map_image();
    let ring = console_ring();
    let window: ArrayVec<(u64, u64), 4> =
        ring.iter().map(|(page, _)| (slot::CONSOLE, *page)).collect();
    builder.map_window(&window);
    let end_of_ram = ram.iter().map(|(_, end)| *end).fold(0, u64::max);
    builder.make_areas(layout::area_pages(end_of_ram / PAGE));
    // SAFETY: RAM, image, window and with the image the stack are mapped; all that was read
    // through the boot page tables has been copied.
    let mut spare = unsafe { builder.switch() };
    let shared_page = Pfn::new(spare.start / PAGE);
    if let Err(errno) = share_page(shared_page) {
        panic!("sharing pfn {shared_page} with Xen: {errno}");
    }
    spare.start += PAGE;
    if let Some((_, port)) = ring {
        // SAFETY: the window slot maps the console page, writable, for good.
        console::use_ring(unsafe { Ring::new(layout::window(slot::CONSOLE).as_mut_ptr(), port) });
    }

    let to_frames = |(start, end): (u64, u64)| (start / PAGE, end / PAGE);
    free[largest] = (end.min(BOOT_MAPPED), end);
    let ground = Ground {
        kind: Kind::Pvh,
        initial_domain,
        p2m: P2m::translated(end_of_ram / PAGE),
        m2p: None,
        start_info: None,
        shared_page: Some(shared_page),
        linear: Linear::translated(),
        area_tables: None,
        shared: ArrayVec::new(),
        spare: to_frames((spare.start, spare.end)),
        others: free.into_iter().map(to_frames).collect(),
    };
    (ground, command_line)
}

/// Puts the page that Xen shares with the domain at a spare page, whose memory goes back to Xen. In
/// a domain that was restored there is none beneath it.
pub fn share_page(page: Pfn) -> Result<(), XenErrno> {
    let argument = AddToPhysmap {
        domid: DomId::SELF,
        size: 0,
        space: XENMAPSPACE_SHARED_INFO,
        idx: 0,
        gpfn: page.number(),
    };
    // SAFETY: the page is nobody's ([M1](xen_contig::rules#M1)), and from here on Xen's.
    unsafe { xen().memory_op(MemoryOp::AddToPhysmap(&argument)) }?;
    events::map(Kind::Pvh, Gfn::new(page.number()))
}

/// The memory map as Xen tells it by hypercall.
fn memory_map_of_xen() -> ArrayVec<MemoryRegion, MAX_REGIONS> {
    let mut entries = [E820Entry::default(); MAX_REGIONS];
    let mut map = MemoryMap { nr_entries: MAX_REGIONS as u32, buffer: entries.as_mut_ptr() };
    // SAFETY: the buffer has as many entries as the argument says and lives across the call.
    if let Err(errno) = unsafe { xen().memory_op(MemoryOp::MemoryMap(&mut map)) } {
        panic!("XENMEM_memory_map: {errno}");
    }
    let regions: ArrayVec<MemoryRegion, MAX_REGIONS> = entries
        .iter()
        .take(map.nr_entries as usize)
        .map(|entry| MemoryRegion {
            start: entry.start,
            len: entry.length,
            kind: MemoryKind::from(entry.kind),
        })
        .collect();
    if let Err(error) = memory_map::check(&regions) {
        panic!("XENMEM_memory_map: {error}");
    }
    regions
}

/// Has Xen fill the hypercall page.
fn install_hypercall_page() {
    let Some(base) = xen_leaves() else { panic!("CPUID names no Xen: not a Xen guest") };
    // Leaf 3 of Xen's (public/arch-x86/cpuid.h): the MSR that takes the page's address.
    let msr = core::arch::x86_64::__cpuid(base + 2).ebx;
    // SAFETY: the page is code that nothing runs before Xen has filled it.
    unsafe { Msr::new(msr).write(pvh_boot::hypercall_page::physical_address()) };
}

/// Where Xen's CPUID leaves begin: other hypervisor interfaces may come first.
fn xen_leaves() -> Option<u32> {
    (0x4000_0000..0x4001_0000).step_by(0x100).find(|base| {
        let leaf = core::arch::x86_64::__cpuid(*base);
        [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes) == [*b"XenV", *b"MMXe", *b"nVMM"]
    })
}

/// Where the console page of a PVH domU is, and its event channel. dom0 has none.
pub fn console_ring() -> Option<(u64, Port)> {
    let param = |index| -> Result<u64, XenErrno> { untraced().hvm_op(HvmOp::GetParam(index)) };
    let page = param(HvmParamIndex::ConsolePfn).ok().filter(|pfn| *pfn != 0 && *pfn < 1 << 40)?;
    let port = param(HvmParamIndex::ConsoleEvtchn).ok().filter(|port| *port != 0)?;
    Some((page * PAGE, Port(u32::try_from(port).ok()?)))
}
