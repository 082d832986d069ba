//! Booting a PVH guest, on the page tables of the entry.

use arrayvec::ArrayVec;

use pvh_boot::layout::BOOT_MAPPED;
use pvh_boot::page_tables::boot_memory;
use pvh_boot::start_info::PvhStartInfo;
use x86_64::registers::model_specific::Msr;
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::p2m::P2m;

use super::guest::{PVH, console_ring};
use super::memory::{self, Bounds};
use super::paging::TableBuilder;
use super::unbacked;
use crate::boot::{BootState, CUT_AFTER, CommandLine};
use crate::console::{self, ConsoleQueue};
use crate::guest::{self, Guest};
use crate::layout::{self, LINEAR_BASE, slot};
use crate::paging::Linear;
use crate::vcpu;

const PAGE: u64 = PAGE_SIZE as u64;

/// Boots from the state that the entry leaves to the state that the common part expects.
///
/// `start_info` is the physical address of the start info.
pub fn boot(start_info: u32) -> BootState {
    guest::choose(&PVH);
    let first = vcpu::boot();
    PVH.enter_vcpu(first);
    first.list();
    console::use_debug_port();
    install_hypercall_page();
    // The console comes first, so that every later error can be printed.
    let ring = console_ring();
    if let Some((page, port)) = ring
        && page.number() * PAGE < BOOT_MAPPED
    {
        let address = (LINEAR_BASE + page.number() * PAGE) as *mut _;
        // SAFETY: the boot page tables map the ring's page here, writable. The ring moves when the
        // kernel's page tables replace them.
        console::use_ring(unsafe { ConsoleQueue::new(address, port) });
    }

    // SAFETY: the entry's page tables are in use. Memory outside the image is not written before
    // everything that the reader returns has been copied below.
    let read = PvhStartInfo::read(start_info, |start, len| unsafe { boot_memory(start, len) });
    let info = match read {
        Ok(info) => info,
        Err(error) => panic!("start info: {error}"),
    };
    let initial_domain = info.flags.initial_domain();
    // The tools pass a domU's command line whole. Xen up to 4.20 cuts that of dom0 (`create_dom0` in
    // `arch/x86/setup.c`).
    let command_line = CommandLine::new(info.cmd_line, initial_domain.then_some(CUT_AFTER));
    let map = match info.memory_map.is_empty() {
        // The start info of a PVH dom0 contains no memory map (4.17, `pvh_load_kernel`).
        true => memory::map_of_xen(),
        false => info.memory_map.clone(),
    };
    let mut ram = memory::ram(&map);
    // Only the toolstack populates a domain on demand, so this never concerns dom0.
    let unbacked = match initial_domain {
        true => Ok(0),
        // SAFETY: only the boot data has been used, and it lies below the floor.
        false => unsafe { unbacked::release(&mut ram, memory::end_of_boot_data()) },
    };
    let mut free = memory::free(&ram);
    let below = |(start, end): Bounds| end.min(BOOT_MAPPED).saturating_sub(start);
    let Some(largest) = (0..free.len()).max_by_key(|index| below(free[*index])) else {
        panic!("start info: no RAM above the first MiB except the image");
    };
    let (start, end) = free[largest];

    let end_of_ram = ram.iter().map(|(_, end)| *end).fold(0, u64::max);
    let mut builder = TableBuilder::new(start..end.min(BOOT_MAPPED));
    for &(start, end) in &ram {
        assert!(end <= layout::LINEAR_FRAMES * PAGE, "RAM up to {end:#x} is too high to map");
        builder.map_linear(start..end);
    }
    builder.map_image();
    builder.make_window();
    if let Some((page, _)) = ring {
        builder.map_window(slot::CONSOLE, page);
    }
    builder.make_areas(layout::area_pages(end_of_ram / PAGE));
    // SAFETY: RAM, window and image are mapped, the boot stack included. Everything that was read
    // through the boot page tables has been copied, and nothing is printed before the ring moves.
    let mut spare = unsafe { builder.switch() };
    if let Some((_, port)) = ring {
        // SAFETY: the window slot maps the page of the ring, writable, for good.
        console::use_ring(unsafe {
            ConsoleQueue::new(layout::window(slot::CONSOLE).as_mut_ptr(), port)
        });
    }
    let shared_page = Pfn::new(spare.start / PAGE);
    spare.start += PAGE;
    // SAFETY: the frame was just taken from the spare memory.
    if let Err(errno) = unsafe { PVH.share_page(shared_page) } {
        panic!("sharing pfn {shared_page} with Xen: {errno}");
    }

    let to_frames = |(start, end): Bounds| (start / PAGE, end / PAGE);
    free[largest] = (end.min(BOOT_MAPPED), end);
    BootState {
        command_line,
        initial_domain,
        p2m: P2m::translated(end_of_ram / PAGE),
        m2p: None,
        start_info: None,
        linear: Linear::translated(),
        area_tables: None,
        memory: ram.iter().map(|(start, end)| (end - start) / PAGE).sum(),
        unbacked,
        shared: ArrayVec::new(),
        spare: to_frames((spare.start, spare.end)),
        others: free.into_iter().map(to_frames).collect(),
    }
}

/// Makes Xen fill the hypercall page.
fn install_hypercall_page() {
    let Some(base) = xen_leaves() else {
        panic!("CPUID does not report Xen; this kernel runs only as a Xen guest")
    };
    // Leaf 3 of Xen (public/arch-x86/cpuid.h) names the MSR that takes the address of the page.
    let msr = core::arch::x86_64::__cpuid(base + 2).ebx;
    // SAFETY: the page contains code that runs only after Xen has filled it.
    unsafe { Msr::new(msr).write(pvh_boot::hypercall_page::physical_address()) };
}

/// Returns the first of Xen's CPUID leaves. Those of other hypervisor interfaces may precede them.
fn xen_leaves() -> Option<u32> {
    (0x4000_0000..0x4001_0000).step_by(0x100).find(|base| {
        let leaf = core::arch::x86_64::__cpuid(*base);
        [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes) == [*b"XenV", *b"MMXe", *b"nVMM"]
    })
}
