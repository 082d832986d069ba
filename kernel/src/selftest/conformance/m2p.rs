//! What Xen's M2P contains for frames that the guest does not own.

use alloc::vec;
use alloc::vec::Vec;

use hypercall::ops::{MemoryOp, MmuUpdate};
use hypercall::{DomId, Xen, XenErrno};
use x86_64::registers::control::Cr3;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};

use crate::machine::Machine;
use crate::vcpu::xen;

/// The result of a hypercall.
pub type Answer = Result<u64, XenErrno>;

/// The number of frames that a piece of the M2P describes. Xen maps the table in pieces of 2 MiB,
/// and leaves out those without a frame of RAM.
const PIECE: u64 = 1 << 18;

/// Returns the first machine frame after RAM.
pub fn end_of_ram() -> Result<u64, XenErrno> {
    // SAFETY: the call only returns a number.
    unsafe { xen().memory_op(MemoryOp::MaximumRamPage) }
}

/// Machine frames that the guest does not own.
pub struct ForeignFrames {
    /// Frames that the M2P assigns to another guest.
    pub of_guests: Vec<u64>,
    /// Frames that the M2P assigns to no guest. They are free or belong to Xen.
    pub of_nobody: Vec<u64>,
}

/// Calls `see` with each machine frame near the guest's own, and with its guest frame by the M2P.
/// Stops when `see` returns true.
fn each_near(machine: &Machine, mut see: impl FnMut(u64, Option<Pfn>) -> bool) {
    let end = end_of_ram().unwrap_or(0);
    let mut pieces = vec![false; end.div_ceil(PIECE) as usize];
    for pfn in (0..machine.p2m.frames()).map(Pfn::new) {
        let piece = machine.p2m.mfn(pfn).map(|mfn| (mfn.number() / PIECE) as usize);
        if let Some(known) = piece.and_then(|piece| pieces.get_mut(piece)) {
            *known = true;
        }
    }
    for (piece, _) in pieces.iter().enumerate().filter(|(_, known)| **known) {
        let first = piece as u64 * PIECE;
        for mfn in first..(first + PIECE).min(end) {
            if see(mfn, owner(machine, mfn)) {
                return;
            }
        }
    }
}

/// Returns the first machine frame near the guest's own for which `wanted` returns true. `wanted`
/// gets its number and its guest frame by the M2P.
pub fn find_near(
    machine: &Machine,
    mut wanted: impl FnMut(u64, Option<Pfn>) -> bool,
) -> Option<u64> {
    let mut found = None;
    each_near(machine, |mfn, recorded| {
        found = wanted(mfn, recorded).then_some(mfn);
        found.is_some()
    });
    found
}

/// Finds at most `count` frames of either kind, spread over the memory near the guest's own.
pub fn frames_of_others(machine: &Machine, count: u64) -> ForeignFrames {
    // The walk runs twice, because the heap cannot hold all frames: once to count, once to choose.
    let each = |see: &mut dyn FnMut(u64, bool)| {
        each_near(machine, |mfn, recorded| {
            match recorded {
                Some(pfn) if machine.p2m.mfn(pfn) == Some(Mfn::new(mfn)) => {}
                recorded => see(mfn, recorded.is_some()),
            }
            false
        });
    };
    let mut all = [0_u64; 2];
    each(&mut |_, guests| all[usize::from(guests)] += 1);
    let (mut seen, mut picked) = ([0_u64; 2], [Vec::new(), Vec::new()]);
    each(&mut |mfn, guests| {
        let kind = usize::from(guests);
        if seen[kind] % all[kind].div_ceil(count) == 0 {
            picked[kind].push(mfn);
        }
        seen[kind] += 1;
    });
    let [of_nobody, of_guests] = picked;
    ForeignFrames { of_guests, of_nobody }
}

/// Returns the guest frame that the M2P has for a machine frame near one of the guest's.
fn owner(machine: &Machine, mfn: u64) -> Option<Pfn> {
    // SAFETY: the piece of the table is mapped, because it describes a frame of RAM.
    unsafe { machine.m2p?.pfn(Mfn::new(mfn)) }
}

/// Finds the machine frame below `end` that the M2P assigns to `pfn`. `end` lies within the first
/// GiB, where every machine has RAM.
pub fn find(machine: &Machine, end: u64, pfn: u64) -> Option<u64> {
    assert!(end <= PIECE, "mfn {end:#x} is beyond the first piece");
    (0..end).find(|mfn| owner(machine, *mfn) == Some(Pfn::new(pfn)))
}

/// Returns what the M2P has for a machine frame of the guest.
pub fn get(machine: &Machine, mfn: u64) -> Option<u64> {
    owner(machine, mfn).map(Pfn::number)
}

/// Sets an entry of the M2P.
pub fn set(mfn: u64, pfn: u64) -> Answer {
    let update = [MmuUpdate::machine_to_phys(Mfn::new(mfn), pfn)];
    // SAFETY: the update changes no mapping.
    unsafe { xen().mmu_update(&update, &mut 0, DomId::SELF) }
}

/// Returns the top-level page table that is in use.
pub fn top_table() -> Mfn {
    // A PV guest reads the machine frame.
    Mfn::new(Cr3::read().0.start_address().as_u64() / PAGE_SIZE as u64)
}
