//! The calls `mmu_update`, `update_va_mapping` and `mmuext_op`.

use arrayvec::ArrayVec;
use hypercall::ops::{MmuExtOp, MmuUpdate, Pte, UvmFlags};
use hypercall::{DomId, Mfn, PageTableFlags, Xen};

use crate::line::AnswerLine;
use crate::player::{Player, READ};
use crate::words::{Words, cut, frames};
use crate::{FRAMES, ScriptGuest, ScriptPage};

/// Initial value of the count that Xen returns. No list is that long.
const UNCOUNTED: u32 = 77;

impl<G: ScriptGuest> Player<'_, G> {
    /// Writes entries of the linear mapping, of the M2P, and of other frames in order.
    ///
    /// Example: `mmu_update r0-r7=none r8=rw m2p:r9=r0 entry:beyond=none domain=self`
    pub fn mmu_update(&mut self, words: Words<'_>) -> Option<AnswerLine> {
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
        // SAFETY: the updates change only mappings of the run, which the script owns and which
        // contains no Rust value ([M1](xen_contig::rules#M1)). For frames that the domain does not
        // own, Xen refuses the update.
        let answer = unsafe {
            self.guest.xen().mmu_update(&updates, &mut done, domain.unwrap_or(DomId::SELF))
        };
        let mut line = AnswerLine::answer(answer);
        self.add_count(&mut line, done);
        Some(line)
    }

    /// Writes the entry of a virtual address and flushes the address on all vCPUs.
    ///
    /// Example: `update_va_mapping alias=ro:r1`
    pub fn update_va_mapping(&mut self, mut words: Words<'_>) -> Option<AnswerLine> {
        let (place, value) = cut(words.next()?, b'=')?;
        let page = match place {
            "alias" => ScriptPage::Alias,
            "nowhere" => ScriptPage::Nowhere,
            _ => ScriptPage::Linear(self.pfn(*frames(place)?.start())),
        };
        let pte = self.target(value, place)?;
        let (address, flush) = (self.guest.address(page), UvmFlags::INVLPG | UvmFlags::ALL);
        // SAFETY: the script owns the frames of the run, which contain no Rust value
        // ([M1](xen_contig::rules#M1)). The other pages are for the script, and nothing accesses
        // memory through them.
        let answer = unsafe { self.guest.xen().update_va_mapping(address, pte, flush) };
        let mut line = AnswerLine::answer(answer);
        self.add_mappings(&mut line);
        Some(line)
    }

    /// Makes several operations on page tables and TLBs.
    ///
    /// Example: `mmuext_op flush pin:r0 unpin:r0 clear:r0 domain=self`
    pub fn mmuext_op(&mut self, words: Words<'_>) -> Option<AnswerLine> {
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
        // SAFETY: the script owns the frames of the run, which contain no Rust value
        // ([M1](xen_contig::rules#M1)). A flush changes no mapping.
        let answer =
            unsafe { self.guest.xen().mmuext_op(&ops, &mut done, domain.unwrap_or(DomId::SELF)) };
        let mut line = AnswerLine::answer(answer);
        self.add_count(&mut line, done);
        Some(line)
    }

    /// Returns the entry for a word.
    ///
    /// The word is `none`, or `rw`, `ro` or `uc` with an optional frame. The frame follows a colon. Without one, the entry maps frame `own`.
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

    /// Returns the machine address of a frame's entry in the linear mapping.
    ///
    /// Returns 0 in a translated guest, which has no such address.
    fn entry(&self, index: u64) -> u64 {
        let translated = self.guest.is_translated();
        if translated { 0 } else { self.guest.entry(self.pfn(index)) }
    }

    fn add_count(&self, line: &mut AnswerLine, done: u32) {
        match done {
            UNCOUNTED => line.add(format_args!(" done not told")),
            done => line.add(format_args!(" done={done}")),
        }
        self.add_mappings(line);
    }

    /// Adds the frames of the run with an unusual linear mapping to a line.
    fn add_mappings(&self, line: &mut AnswerLine) {
        if self.guest.is_translated() {
            return;
        }
        let [mut unmapped, mut read_only, mut elsewhere] = [0; 3];
        for index in 0..FRAMES {
            let pte = self.guest.pte(self.pfn(index));
            if !pte.is_present() {
                unmapped |= 1 << index;
            } else if pte.mfn().number() != self.backing[index as usize] {
                elsewhere |= 1 << index;
            } else if !pte.is_writable() {
                read_only |= 1 << index;
            }
        }
        line.set(" unmapped ", "r", unmapped);
        line.set(" read-only ", "r", read_only);
        line.set(" elsewhere ", "r", elsewhere);
        self.add_state(line, 0);
    }
}

/// The names of the frames in a script.
const OWN: [&str; FRAMES as usize] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
