//! `mmu_update`, `update_va_mapping` and `mmuext_op`: what is mapped where.

use arrayvec::ArrayVec;
use hypercall::ops::{MmuExtOp, MmuUpdate, Pte, UvmFlags};
use hypercall::{DomId, Mfn, PageTableFlags, Xen};

use crate::line::Line;
use crate::scene::{Call, READ, Scene};
use crate::words::{Words, cut, frames};
use crate::{FRAMES, Ground, Page};

/// What the count of a list that Xen works through holds before: more than any list is long.
const UNCOUNTED: u32 = 77;

impl<G: Ground> Scene<'_, G> {
    /// `mmu_update r0-r7=none r8=rw m2p:r9=r0 entry:beyond=none domain=self`: entries of the linear
    /// mapping, of the M2P, and at the start of any frame, in order.
    pub fn mmu_update(&mut self, words: Words<'_>) -> Call {
        let (mut updates, mut domain) = (ArrayVec::<MmuUpdate, { FRAMES as usize }>::new(), None);
        for (place, value) in words.map_while(|word| cut(word, b'=')) {
            match cut(place, b':') {
                _ if place == "domain" => domain = Some(self.domain(value)?),
                Some(("m2p", frame)) => {
                    let pfn = self.pfn(*frames(value)?.start()).number();
                    let mfn = Mfn::new(self.frame(frame)?);
                    updates.try_push(MmuUpdate::machine_to_phys(mfn, pfn)).ok()?;
                }
                Some(("entry", frame)) => {
                    let entry = self.frame(frame)? << 12;
                    let pte = self.target(value, "")?;
                    updates.try_push(MmuUpdate::page_table(entry, pte)).ok()?;
                }
                Some(_) => return None,
                None => {
                    for index in frames(place)? {
                        let pte = self.target(value, OWN[index as usize])?;
                        let entry = self.entry(index);
                        updates.try_push(MmuUpdate::page_table(entry, pte)).ok()?;
                    }
                }
            }
        }
        let mut done = UNCOUNTED;
        // SAFETY: mappings of the run, in which nothing of Rust's lies (M1).
        let answer = unsafe {
            self.ground.xen().mmu_update(&updates, &mut done, domain.unwrap_or(DomId::SELF))
        };
        let mut line = Line::answer(answer);
        self.count(&mut line, done);
        Some(line)
    }

    /// `update_va_mapping alias=ro:r1`, with a flush of that address on all vCPUs.
    pub fn update_va_mapping(&mut self, mut words: Words<'_>) -> Call {
        let (place, value) = cut(words.next()?, b'=')?;
        let page = match place {
            "alias" => Page::Alias,
            "nowhere" => Page::Nowhere,
            _ => Page::Linear(self.pfn(*frames(place)?.start())),
        };
        let pte = self.target(value, place)?;
        let (address, flush) = (self.ground.address(page), UvmFlags::INVLPG | UvmFlags::ALL);
        // SAFETY: as in `mmu_update`; nothing is reached through the other pages.
        let answer = unsafe { self.ground.xen().update_va_mapping(address, pte, flush) };
        let mut line = Line::answer(answer);
        self.mappings(&mut line);
        Some(line)
    }

    /// `mmuext_op flush pin:r0 unpin:r0 clear:r0 domain=self`
    pub fn mmuext_op(&mut self, words: Words<'_>) -> Call {
        let (mut ops, mut domain) = (ArrayVec::<MmuExtOp, { FRAMES as usize }>::new(), None);
        for word in words {
            let op = match cut(word, b':').or_else(|| cut(word, b'=')) {
                None if word == "flush" => MmuExtOp::tlb_flush_all(),
                Some(("pin", frame)) => MmuExtOp::pin_l1(Mfn::new(self.frame(frame)?)),
                Some(("unpin", frame)) => MmuExtOp::unpin(Mfn::new(self.frame(frame)?)),
                Some(("clear", frame)) => MmuExtOp::clear_page(Mfn::new(self.frame(frame)?)),
                Some(("domain", name)) => {
                    domain = Some(self.domain(name)?);
                    continue;
                }
                _ => return None,
            };
            ops.try_push(op).ok()?;
        }
        let mut done = UNCOUNTED;
        // SAFETY: nothing of Rust's lies in the frames of the run (M1); a flush changes nothing.
        let answer =
            unsafe { self.ground.xen().mmuext_op(&ops, &mut done, domain.unwrap_or(DomId::SELF)) };
        let mut line = Line::answer(answer);
        self.count(&mut line, done);
        Some(line)
    }

    /// The entry that a word stands for: `none`, `rw`, `ro` or `uc`, of the frame behind a colon,
    /// else of frame `own`.
    fn target(&self, word: &str, own: &str) -> Option<Pte> {
        let (rights, frame) = cut(word, b':').unwrap_or((word, own));
        let flags = match rights {
            "none" => return Some(Pte::NOT_PRESENT),
            "rw" => READ | PageTableFlags::WRITABLE,
            "ro" => READ,
            "uc" => READ | PageTableFlags::NO_CACHE,
            _ => return None,
        };
        Some(Pte::new(Mfn::new(self.frame(frame)?), flags))
    }

    /// Where the linear mapping's entry of a frame is; somewhere, in a guest that has none to offer.
    fn entry(&self, index: u64) -> u64 {
        let translated = self.ground.is_translated();
        if translated { 0 } else { self.ground.entry(self.pfn(index)) }
    }

    fn count(&self, line: &mut Line, done: u32) {
        match done {
            UNCOUNTED => line.add(format_args!(" done not told")),
            done => line.add(format_args!(" done={done}")),
        }
        self.mappings(line);
    }

    /// Adds to a line what of the run is not mapped as usual.
    fn mappings(&self, line: &mut Line) {
        if self.ground.is_translated() {
            return;
        }
        let [mut unmapped, mut read_only, mut elsewhere] = [0; 3];
        for index in 0..FRAMES {
            let pte = self.ground.pte(self.pfn(index));
            if !pte.is_present() {
                unmapped |= 1 << index;
            } else if pte.mfn().number() != self.beneath[index as usize] {
                elsewhere |= 1 << index;
            } else if !pte.is_writable() {
                read_only |= 1 << index;
            }
        }
        line.set(" unmapped ", "r", unmapped);
        line.set(" read-only ", "r", read_only);
        line.set(" elsewhere ", "r", elsewhere);
        self.tell(line, 0);
    }
}

/// The names of the frames.
const OWN: [&str; FRAMES as usize] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
