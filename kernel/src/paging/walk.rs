//! A walk of the page tables that are in use, as the processor does it.

use hypercall::PageTableFlags;
use hypercall::ops::Pte;
use x86_64::registers::control::Cr3;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::M2p;

use crate::layout;

/// The top-level slots that belong to Xen in a PV guest (`public/arch-x86/xen-x86_64.h`).
const XEN_SLOTS: core::ops::Range<u64> = 256..272;

/// A mapping of one page, small or large.
#[derive(Clone, Copy, Debug)]
pub struct PageMapping {
    /// The first address.
    pub address: u64,
    /// The size in bytes.
    pub size: u64,
    /// The first frame, in the numbering of the page tables.
    pub frame: u64,
    /// True if all levels allow writes.
    pub writable: bool,
    /// True if all levels allow execution.
    pub executable: bool,
}

/// The items that a walk visits.
#[derive(Clone, Copy, Debug)]
pub enum Visit {
    /// A page table.
    Table {
        /// The frame of the table, in the numbering of the page tables.
        frame: u64,
        /// The level, from 1 to 4.
        level: u8,
        /// The first address that it translates.
        address: u64,
    },
    /// A mapping.
    Page(PageMapping),
}

/// Calls `see` with every table and every mapping of the guest, except those of Xen.
///
/// `m2p` belongs to a PV guest, whose tables name machine frames. The guest has `frames` frames.
pub fn visit(m2p: Option<M2p>, frames: u64, mut see: impl FnMut(Visit)) {
    let (top, _) = Cr3::read();
    let top = top.start_address().as_u64() / PAGE_SIZE as u64;
    level(&NamedFrames { m2p, count: frames }, top, 4, 0, (true, true), &mut see);
}

/// How the guest's page tables name its frames.
struct NamedFrames {
    m2p: Option<M2p>,
    count: u64,
}

fn level(
    frames: &NamedFrames,
    table: u64,
    depth: u8,
    base: u64,
    (writable, executable): (bool, bool),
    see: &mut impl FnMut(Visit),
) {
    see(Visit::Table { frame: table, level: depth, address: base });
    let shift = 12 + 9 * (depth - 1);
    for index in 0..512 {
        if depth == 4 && XEN_SLOTS.contains(&index) {
            continue;
        }
        let Some(entry) = read(frames, table, index) else { return };
        if !entry.is_present() {
            continue;
        }
        // The upper half of the address space has its sign bits set.
        let sign = if depth == 4 && index >= 256 { 0xffff << 48 } else { 0 };
        let address = base | index << shift | sign;
        let flags = entry.flags();
        let rights = (
            writable && flags.contains(PageTableFlags::WRITABLE),
            executable && !flags.contains(PageTableFlags::NO_EXECUTE),
        );
        let frame = entry.mfn().number();
        if depth == 1 || flags.contains(PageTableFlags::HUGE_PAGE) {
            let (writable, executable) = rights;
            see(Visit::Page(PageMapping {
                address,
                size: 1 << shift,
                frame,
                writable,
                executable,
            }));
        } else {
            level(frames, frame, depth - 1, address, rights, see);
        }
    }
}

/// Reads an entry of the table in a frame, in the numbering of the page tables.
fn read(frames: &NamedFrames, table: u64, index: u64) -> Option<Pte> {
    let pfn = match frames.m2p {
        // SAFETY: page tables of this domain lie in RAM.
        Some(m2p) => unsafe { m2p.pfn(Mfn::new(table)) }?,
        None => Pfn::new(table),
    };
    if pfn.number() >= frames.count {
        return None;
    }
    let slot = layout::linear(pfn).as_ptr::<u64>();
    // SAFETY: the linear mapping maps every frame of the guest readable; the index is below 512.
    Some(Pte::from_raw(unsafe { slot.add(index as usize).read_volatile() }))
}
