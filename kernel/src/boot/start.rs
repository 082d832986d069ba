//! The order in which the kernel boots.

use alloc::boxed::Box;
use alloc::vec::Vec;

use pvh_boot::BootInfo;
use spin::{Mutex, Once};
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::exchange::{Accounts, Capability, ExchangeOptions, Fuse, Scrub};
use xen_contig::frames::{FrameAllocator, FrameRun};
use xen_contig::p2m::P2m;
use xen_contig::paging::{Holder, LinearMapping};
use xen_contig::vmap::{UnmapMode, VmapMemory};

use super::reservation::ReservationReport;
use super::state::{BootState, CommandLine};
use crate::areas::{self, Areas};
use crate::machine::Machine;
use crate::paging::{FrameUsers, Linear, Uses};
use crate::vcpu::xen;
use crate::{heap, layout, pv, pvh, trace};

/// What the boot code hands over to `main`.
pub struct BootResult {
    /// The machine, with page tables, heap, frames and console.
    pub machine: Machine,
    /// The command line, as the user wrote it.
    pub command_line: Vec<u8>,
    /// The number of bytes after which Xen cuts the command line.
    pub cut_after: Option<usize>,
    /// How many frames Xen counts, and how many were returned to it.
    pub reservation: ReservationReport,
}

/// Boots the kernel.
///
/// The function is never inlined, because it works on copies of memory maps. In `main` they would
/// occupy half of the stack as long as the kernel runs.
#[inline(never)]
pub fn start(boot: BootInfo) -> BootResult {
    trace::start();
    let state = match boot {
        BootInfo::Pv { start_info } => pv::boot(start_info),
        BootInfo::Pvh { start_info } => pvh::boot(start_info),
    };
    let reservation = ReservationReport::new(state.unbacked);
    let (machine, command_line) = machine(state);
    // The command line is copied only now, because there was no heap before.
    BootResult {
        machine,
        command_line: command_line.bytes.to_vec(),
        cut_after: command_line.cut_after,
        reservation,
    }
}

/// Sets up heap, areas and free frames from the state that the PV or PVH part hands over.
fn machine(state: BootState) -> (Machine, CommandLine) {
    let BootState {
        command_line,
        initial_domain,
        p2m,
        m2p,
        start_info,
        linear,
        area_tables,
        memory,
        unbacked: _,
        shared,
        spare: (mut first, end),
        others,
    } = state;
    let frames_of = |bytes: usize| bytes.div_ceil(PAGE_SIZE) as u64;
    let bitmap_words = FrameAllocator::bitmap_words(p2m.frames());
    let heap_bytes = heap::bytes_for(p2m.frames());
    let (heap_frames, bitmap_frames) = (frames_of(heap_bytes), frames_of(bitmap_words * 8));
    let sizes = areas::sizes(p2m.frames());
    let metadata_frames = frames_of(sizes.bytes());
    let needed = heap_frames + bitmap_frames + metadata_frames;
    assert!(
        first + needed <= end,
        "not enough memory: heap, bitmap and metadata of the areas need a run of {needed} frames, \
         and only {} are unused; give the guest more memory",
        end.saturating_sub(first)
    );
    let mut cut = |frames| {
        first += frames;
        layout::linear(Pfn::new(first - frames))
    };
    // SAFETY: the linear mapping maps the spare run, and nothing uses it
    // ([M1](xen_contig::rules#M1)). The three pieces are disjoint, and each is as long as its use
    // needs. They are cut off before the rest goes to the frame allocator. This code runs once.
    let (bitmap, metadata) = unsafe {
        heap::init(cut(heap_frames).as_mut_ptr(), heap_bytes);
        let bitmap = cut(bitmap_frames).as_mut_ptr();
        let bitmap = core::slice::from_raw_parts_mut(bitmap, bitmap_words);
        (bitmap, VmapMemory::place(cut(metadata_frames).as_mut_ptr(), sizes))
    };
    let mut frames = FrameAllocator::new(bitmap, p2m.frames());
    for (start, end) in others.into_iter().chain([(first, end)]) {
        // SAFETY: the PV or PVH part found these runs unused, and they do not contain the pieces
        // that were cut off.
        unsafe { free_populated(&mut frames, &p2m, start, end) };
    }
    let capability = Capability::ask(xen(), &p2m);
    let p2m: &P2m<'_> = Box::leak(Box::new(p2m));
    let linear: &Linear = Box::leak(Box::new(linear));
    let tables = areas::AreaPageTables::new(p2m, linear.flushes(), area_tables);
    let areas = Areas::new(tables, metadata, UnmapMode::default(), areas::budget(sizes))
        .expect("memory of the same sizes");
    let areas: &Areas = Box::leak(Box::new(areas));
    linear.set_others(FrameUsers { areas, uses: Uses::new(), m2p });
    for (pfn, name) in shared {
        linear.note_use(pfn, Holder::Shared { name });
    }
    let machine = Machine {
        initial_domain,
        p2m,
        m2p,
        start_info,
        memory,
        linear,
        areas,
        frames: Mutex::new(frames),
        accounts: Accounts::new(),
        capability,
        exchange_options: ExchangeOptions { fuse: Fuse::On, scrub: Scrub::ask(xen()) },
        dma: Once::new(),
    };
    (machine, command_line)
}

/// Gives the populated frames from `start` to before `end` to the frame allocator.
///
/// # Safety
/// The linear mapping maps the frames, and nothing uses them.
unsafe fn free_populated(frames: &mut FrameAllocator<'_>, p2m: &P2m<'_>, start: u64, end: u64) {
    let populated = |pfn: &u64| p2m.gfn(Pfn::new(*pfn)).is_some();
    let mut next = start;
    while let Some(first) = (next..end).find(populated) {
        let last = (first..end).find(|pfn| !populated(pfn)).unwrap_or(end);
        // SAFETY: by this function's contract nothing uses the frames ([M1](xen_contig::rules#M1)).
        let run = unsafe { FrameRun::new(Pfn::new(first), last - first) };
        if let Err(error) = frames.give(run) {
            panic!("the boot memory map overlaps itself: {error}");
        }
        next = last;
    }
}
