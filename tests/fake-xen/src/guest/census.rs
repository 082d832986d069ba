//! Every frame in exactly one place ([M1](xen_contig::rules#M1)), and P2M, page tables and M2P in
//! agreement ([M4](xen_contig::rules#M4)).

use std::collections::HashMap;

use hypercall::{Mfn, Pfn};

use super::FakeGuest;
use crate::content::WORDS;
use crate::frame::{Owner, PageType};
use crate::machine::{INVALID_M2P, MachineState};

/// Where the guest's frames are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Guest frames with machine memory, mapped.
    pub mapped: u64,
    /// Guest frames with machine memory by the P2M, but not mapped.
    pub unmapped: Vec<Pfn>,
    /// Guest frames without machine memory.
    pub holes: Vec<Pfn>,
    /// Machine frames that Xen counts as the guest's and that the guest's P2M does not name.
    pub orphans: Vec<Mfn>,
}

/// One guest frame: its machine frame, its linear entry and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameState {
    mfn: Option<Mfn>,
    pte: u64,
    content: u64,
}

/// The guest's memory at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    states: Vec<FrameState>,
}

impl Snapshot {
    /// The runs of frames, first and count, whose machine frame or mapping differs from `other`.
    pub fn moved(&self, other: &Self) -> Vec<(Pfn, u64)> {
        self.differ(other, |a, b| (a.mfn, a.pte) != (b.mfn, b.pte))
    }

    /// The runs of frames whose content differs from `other`.
    pub fn rewritten(&self, other: &Self) -> Vec<(Pfn, u64)> {
        self.differ(other, |a, b| a.content != b.content)
    }

    fn differ(
        &self,
        other: &Self,
        differ: impl Fn(&FrameState, &FrameState) -> bool,
    ) -> Vec<(Pfn, u64)> {
        let mut runs: Vec<(Pfn, u64)> = Vec::new();
        for (pfn, (a, b)) in self.states.iter().zip(&other.states).enumerate() {
            let pfn = Pfn::new(pfn as u64);
            match runs.last_mut() {
                _ if !differ(a, b) => {}
                Some((first, count)) if first.add(*count) == pfn => *count += 1,
                _ => runs.push((pfn, 1)),
            }
        }
        runs
    }
}

impl FakeGuest {
    /// Counts every frame.
    ///
    /// # Panics
    /// If P2M, page tables, M2P, reference counts or owners disagree.
    pub fn check(&self) -> Census {
        let beneath: Vec<Option<u64>> =
            (0..self.frames).map(|pfn| self.mfn(Pfn::new(pfn)).map(Mfn::number)).collect();
        self.xen.with(|machine| {
            machine.check_references();
            machine.check_owners();
            machine.census(&beneath)
        })
    }

    /// Checks that every guest frame is mapped and that no frame is lost.
    ///
    /// # Panics
    /// As for [`check`](Self::check), and if a frame is unmapped or lost.
    pub fn check_whole(&self) {
        let census = self.check();
        let whole =
            Census { mapped: self.frames, unmapped: vec![], holes: vec![], orphans: vec![] };
        assert_eq!(census, whole, "every frame of the guest is mapped, and none is lost");
    }

    /// Remembers the guest's memory.
    pub fn snapshot(&self) -> Snapshot {
        let beneath: Vec<Option<Mfn>> =
            (0..self.frames).map(|pfn| self.mfn(Pfn::new(pfn))).collect();
        let states = |machine: &mut MachineState| {
            let state = |(pfn, mfn): (u64, Option<Mfn>)| FrameState {
                mfn,
                pte: machine.linear(pfn).map_or(0, |pte| pte.raw()),
                content: mfn.map_or(0, |mfn| machine.fingerprint(mfn.number())),
            };
            (0..).zip(beneath).map(state).collect()
        };
        Snapshot { states: self.xen.with(states) }
    }
}

impl MachineState {
    fn linear(&self, pfn: u64) -> Option<hypercall::ops::Pte> {
        self.entry_of(self.layout.linear_page(pfn)).map(|entry| self.read_entry(entry))
    }

    /// The content of a frame as one number. It is 0 for a page table, whose entries may change.
    fn fingerprint(&self, mfn: u64) -> u64 {
        let frame = &self.frames[mfn as usize];
        if frame.kind == PageType::L1 { 0 } else { frame.content.fingerprint() }
    }

    /// Compares the references and type counts of each frame with the page tables.
    fn check_references(&self) {
        let mut references: HashMap<u64, u32> = HashMap::new();
        let mut users: HashMap<u64, u32> = HashMap::new();
        for (_, table) in self.space.tables() {
            *references.entry(table).or_default() += 1;
            *users.entry(table).or_default() += 1;
        }
        for (table, frame) in (0..).zip(&self.frames) {
            if frame.pinned {
                *references.entry(table).or_default() += 1;
                *users.entry(table).or_default() += 1;
            }
            if frame.kind != PageType::L1 || frame.kind_count == 0 {
                continue;
            }
            for index in 0..WORDS as u64 {
                let pte = self.read_entry((table << 12) + index * 8);
                if pte.is_present() {
                    *references.entry(pte.mfn().number()).or_default() += 1;
                    *users.entry(pte.mfn().number()).or_default() += u32::from(pte.is_writable());
                }
            }
        }
        for (mfn, frame) in (0..).zip(&self.frames) {
            let counted = references.get(&mfn).copied().unwrap_or(0) + frame.holds;
            assert_eq!(frame.references, counted, "references of mfn {mfn:#x}");
            let counted = users.get(&mfn).copied().unwrap_or(0);
            assert_eq!(frame.kind_count, counted, "users of mfn {mfn:#x} as {:?}", frame.kind);
        }
    }

    /// Compares the heap with the owners, and the domain's count with its frames.
    fn check_owners(&self) {
        let mut in_heap = vec![false; self.frames.len()];
        for mfn in self.heap.frames() {
            assert!(
                !std::mem::replace(&mut in_heap[mfn as usize], true),
                "mfn {mfn:#x} free twice"
            );
        }
        let mut pages = 0;
        for (mfn, frame) in self.frames.iter().enumerate() {
            assert_eq!(in_heap[mfn], frame.owner == Owner::Free, "mfn {mfn:#x} {:?}", frame.owner);
            assert_ne!(frame.owner, Owner::Stolen, "mfn {mfn:#x} was left in an exchange");
            if frame.owner == Owner::Domain(self.domain.id) {
                assert!(frame.allocated, "mfn {mfn:#x} was given up while something maps it");
                pages += 1;
            }
        }
        assert_eq!(pages, self.domain.pages, "the domain's count of its frames");
    }

    fn census(&self, beneath: &[Option<u64>]) -> Census {
        let mut census = Census { mapped: 0, unmapped: vec![], holes: vec![], orphans: vec![] };
        let mut claimed = vec![false; self.frames.len()];
        for (pfn, mfn) in (0..).zip(beneath) {
            let pte = self.linear(pfn).filter(|pte| pte.is_present());
            let Some(mfn) = *mfn else {
                assert_eq!(pte, None, "pfn {pfn:#x} is mapped, but the P2M has nothing beneath it");
                census.holes.push(Pfn::new(pfn));
                continue;
            };
            let owner = self.frame(mfn).map(|frame| frame.owner);
            let ours = Some(Owner::Domain(self.domain.id));
            assert_eq!(owner, ours, "the P2M has mfn {mfn:#x} beneath pfn {pfn:#x}");
            assert_eq!(self.m2p(mfn), pfn, "the M2P of mfn {mfn:#x}");
            let first = !std::mem::replace(&mut claimed[mfn as usize], true);
            assert!(first, "mfn {mfn:#x} is beneath two guest frames");
            match pte {
                _ if self.domain.is_translated() => census.mapped += 1,
                None => census.unmapped.push(Pfn::new(pfn)),
                Some(pte) => {
                    assert_eq!(pte.mfn().number(), mfn, "what pfn {pfn:#x} is mapped to");
                    census.mapped += 1;
                }
            }
        }
        for (mfn, frame) in self.frames.iter().enumerate() {
            if frame.owner == Owner::Domain(self.domain.id) && !claimed[mfn] {
                census.orphans.push(Mfn::new(mfn as u64));
            } else if !claimed[mfn] {
                assert_eq!(self.m2p(mfn as u64), INVALID_M2P, "the M2P of mfn {mfn:#x}");
            }
        }
        census
    }
}
