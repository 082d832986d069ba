//! Reads the page tables that are in force, as the processor would.

use hypercall::PageTableFlags;
use hypercall::ops::Pte;
use x86_64::registers::control::Cr3;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::M2p;

use crate::layout;
use crate::machine::Machine;

/// Top-level slots that a PV guest leaves to Xen (`public/arch-x86/xen-x86_64.h`).
const XEN_SLOTS: core::ops::Range<u64> = 256..272;

/// A mapping, of whatever size.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// First address.
    pub address: u64,
    /// How many bytes.
    pub size: u64,
    /// The first frame, as page tables name frames.
    pub frame: u64,
    /// Whether every level allows writes.
    pub writable: bool,
    /// Whether no level forbids execution.
    pub executable: bool,
}

/// What a walk comes by.
#[derive(Clone, Copy, Debug)]
pub enum Visit {
    /// A page table.
    Table {
        /// Its frame, as page tables name frames.
        frame: u64,
        /// 1 to 4.
        level: u8,
    },
    /// A mapping.
    Page(Mapping),
}

/// Shows every mapping of the guest's own to `see`.
pub fn mappings(machine: &Machine, mut see: impl FnMut(Mapping)) {
    visit(machine.m2p, machine.p2m.frames(), |visit| {
        if let Visit::Page(mapping) = visit {
            see(mapping);
        }
    });
}

/// Shows every table and every mapping of the guest's own to `see`. `m2p` is of a PV guest, whose
/// tables name machine frames; `frames` is how many frames the guest has.
pub fn visit(m2p: Option<M2p>, frames: u64, mut see: impl FnMut(Visit)) {
    let (top, _) = Cr3::read();
    let top = top.start_address().as_u64() / PAGE_SIZE as u64;
    level(&Ground { m2p, frames }, top, 4, 0, (true, true), &mut see);
}

struct Ground {
    m2p: Option<M2p>,
    frames: u64,
}

fn level(
    ground: &Ground,
    table: u64,
    depth: u8,
    base: u64,
    (writable, executable): (bool, bool),
    see: &mut impl FnMut(Visit),
) {
    see(Visit::Table { frame: table, level: depth });
    let shift = 12 + 9 * (depth - 1);
    for index in 0..512 {
        if depth == 4 && XEN_SLOTS.contains(&index) {
            continue;
        }
        let Some(entry) = read(ground, table, index) else { return };
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
            see(Visit::Page(Mapping { address, size: 1 << shift, frame, writable, executable }));
        } else {
            level(ground, frame, depth - 1, address, rights, see);
        }
    }
}

/// An entry of the table in a frame, as page tables name frames.
fn read(ground: &Ground, table: u64, index: u64) -> Option<Pte> {
    let pfn = match ground.m2p {
        // SAFETY: page tables name RAM alone.
        Some(m2p) => unsafe { m2p.pfn(Mfn::new(table)) }?,
        None => Pfn::new(table),
    };
    if pfn.number() >= ground.frames {
        return None;
    }
    let slot = layout::linear(pfn).as_ptr::<u64>();
    // SAFETY: a frame of the guest, mapped readable by the linear mapping.
    Some(Pte::from_raw(unsafe { slot.add(index as usize).read_volatile() }))
}
