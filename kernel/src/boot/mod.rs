//! From the entry to a [`Machine`].

mod pv;
mod pvh;

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use arrayvec::ArrayString;
use pvh_boot::BootInfo;
use spin::Mutex;
use xen_contig::addr::{PAGE_SIZE, Pfn};
use xen_contig::exchange::{Accounts, Capability};
use xen_contig::frames::{FrameAllocator, FrameRun};
use xen_contig::p2m::{M2p, P2m};
use xen_contig::paging::Holder;
use xen_contig::vmap::{Mode, VmapMemory};

use super::areas::{self, Areas, Uses};
use super::hypervisor::xen;
use super::kind::Kind;
use super::machine::Machine;
use super::paging::{Linear, Others};
use super::{heap, layout, vcpu};

pub use pvh::{console_ring, share_page};

/// The longest command line that either start info can hold.
type CommandLine = ArrayString<4096>;

/// Boots. Comes back with a machine that has its own page tables, its heap, its frames and its
/// console, and with the command line.
///
/// Never inlined: booting works on copies of memory maps, which would else take half of the stack
/// for as long as the kernel runs.
#[inline(never)]
pub fn start(boot: BootInfo) -> (Machine, String) {
    // First of all: Xen is found through the vCPU's own data.
    vcpu::adopt_boot(match boot {
        BootInfo::Pv { .. } => Kind::Pv,
        BootInfo::Pvh { .. } => Kind::Pvh,
    });
    let (ground, command_line) = match boot {
        BootInfo::Pv { start_info } => pv::start(start_info),
        BootInfo::Pvh { start_info } => pvh::start(start_info),
    };
    // The heap is there from here on.
    let machine = ground.into_machine();
    (machine, command_line.as_str().to_string())
}

/// What the two ways of booting have in common when paging stands.
struct Ground {
    kind: Kind,
    initial_domain: bool,
    p2m: P2m<'static>,
    m2p: Option<M2p>,
    start_info: Option<Pfn>,
    shared_page: Option<Pfn>,
    linear: Linear,
    /// The run of first-level tables of a PV guest's areas.
    area_tables: Option<Pfn>,
    /// Frames that others may use, and as what.
    shared: arrayvec::ArrayVec<(Pfn, &'static str), 2>,
    /// The first frame of a run that nobody uses, and the first behind it: the bitmap and the heap
    /// are cut from its front.
    spare: (u64, u64),
    /// Other frames that nobody uses, as pairs of the same kind. Empty pairs do no harm.
    others: arrayvec::ArrayVec<(u64, u64), 160>,
}

impl Ground {
    fn into_machine(self) -> Machine {
        let Self {
            kind,
            initial_domain,
            p2m,
            m2p,
            start_info,
            shared_page,
            linear,
            area_tables,
            shared,
            spare: (mut first, end),
            others,
        } = self;
        let frames_of = |bytes: usize| bytes.div_ceil(PAGE_SIZE) as u64;
        let bitmap_words = FrameAllocator::bitmap_words(p2m.frames());
        let heap_bytes = heap::bytes_for(p2m.frames());
        let (heap_frames, bitmap_frames) = (frames_of(heap_bytes), frames_of(bitmap_words * 8));
        let sizes = areas::sizes(p2m.frames());
        let books_frames = frames_of(sizes.bytes());
        assert!(
            first + heap_frames + bitmap_frames + books_frames <= end,
            "not enough memory: {} frames left for heap, bitmap and books of {}",
            end.saturating_sub(first),
            heap_frames + bitmap_frames + books_frames
        );
        let mut cut = |frames| {
            first += frames;
            layout::linear(Pfn::new(first - frames))
        };
        // SAFETY: the spare run is mapped by the linear mapping and used by nobody
        // ([M1](xen_contig::rules#M1)); these pieces of it are cut off before the rest goes to the
        // allocator.
        let (bitmap, books) = unsafe {
            heap::init(cut(heap_frames).as_mut_ptr(), heap_bytes);
            let bitmap = cut(bitmap_frames).as_mut_ptr();
            let bitmap = core::slice::from_raw_parts_mut(bitmap, bitmap_words);
            (bitmap, VmapMemory::place(cut(books_frames).as_mut_ptr(), sizes))
        };
        let mut frames = FrameAllocator::new(bitmap, p2m.frames());
        for (start, end) in others.into_iter().chain([(first, end)]) {
            give_populated(&mut frames, &p2m, start, end);
        }
        let capability = Capability::ask(xen(), &p2m);
        let p2m: &P2m<'_> = Box::leak(Box::new(p2m));
        let linear: &Linear = Box::leak(Box::new(linear));
        let tables = areas::Tables::new(p2m, linear, area_tables);
        let areas = Areas::new(tables, books, Mode::default(), areas::budget(sizes))
            .expect("memory of the same sizes");
        let areas: &Areas = Box::leak(Box::new(areas));
        linear.set_others(Others { areas, uses: Uses::new(), m2p });
        for (pfn, name) in shared {
            linear.note_use(pfn, Holder::Shared { name });
        }
        Machine {
            kind,
            initial_domain,
            p2m,
            m2p,
            start_info,
            shared_page,
            linear,
            areas,
            frames: Mutex::new(frames),
            accounts: Accounts::new(),
            capability,
        }
    }
}

/// Gives the frames from `start` to `end` that have memory beneath them to the allocator.
fn give_populated(frames: &mut FrameAllocator<'_>, p2m: &P2m<'_>, start: u64, end: u64) {
    let populated = |pfn: &u64| p2m.gfn(Pfn::new(*pfn)).is_some();
    let mut next = start;
    while let Some(first) = (next..end).find(populated) {
        let last = (first..end).find(|pfn| !populated(pfn)).unwrap_or(end);
        // SAFETY: nobody uses these frames ([M1](xen_contig::rules#M1)), by the word of the boot
        // code.
        let run = unsafe { FrameRun::new(Pfn::new(first), last - first) };
        if let Err(error) = frames.give(run) {
            panic!("boot memory map overlaps itself: {error}");
        }
        next = last;
    }
}
