//! The call `exchange`: `XENMEM_exchange` with any argument.

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen};

use crate::line::AnswerLine;
use crate::player::{FrameList, Player};
use crate::words::{Extents, Words, cut, extents, frames, number};
use crate::{FRAMES, ScriptGuest};

/// `XENMEMF_exact_node_request` of Xen's `public/memory.h`.
const EXACT_NODE: u32 = 1 << 17;

/// First virtual address of the range that Xen reserves (`HYPERVISOR_VIRT_START`).
const XENS_OWN: u64 = 0xffff_8000_0000_0000;

/// First non-canonical virtual address (`__addr_ok`).
const NON_CANONICAL: u64 = 1 << 47;

impl<G: ScriptGuest> Player<'_, G> {
    /// Makes an exchange.
    ///
    /// Example: `exchange 8x0 r0-r7 for 1x3 r0 bits=30 node=1 exact=node count=0 in@=r2`
    pub fn exchange(&mut self, mut words: Words<'_>) -> Option<AnswerLine> {
        let limit = self.guest.limit();
        let input = extents(&mut words, limit)?;
        words.expect("for")?;
        let output = extents(&mut words, limit)?;
        let (mut in_list, mut out_list) = (self.list(&input, false)?, self.list(&output, true)?);
        let mut argument = MemoryExchange {
            input: reservation(&input, &mut in_list),
            output: reservation(&output, &mut out_list),
            nr_exchanged: 0,
        };
        for (key, value) in words.map_while(|word| cut(word, b'=')) {
            match key {
                "bits" => argument.output.mem_flags |= number(value)? as u32,
                "node" => argument.output.mem_flags |= (number(value)? as u32 + 1) << 8,
                "exact" => argument.output.mem_flags |= EXACT_NODE,
                "count" => argument.nr_exchanged = number(value)?,
                "domain" => {
                    argument.input.domid = self.domain(value)?;
                    argument.output.domid = argument.input.domid;
                }
                "out-domain" => argument.output.domid = self.domain(value)?,
                "in@" => argument.input.extent_start = self.place(value, &in_list)?,
                "out@" => argument.output.extent_start = self.place(value, &out_list)?,
                _ => return None,
            }
        }
        // A list that claims more entries than it has must start with a frame that Xen refuses, so
        // that Xen does not read past it.
        let long = |extents: &Extents<'_>| extents.count > FRAMES;
        let stops = input.names.first() == Some(&"beyond") && argument.nr_exchanged == 0;
        if (long(&input) || long(&output)) && !stops {
            return None;
        }
        let count = argument.nr_exchanged;
        let (in_before, out_before) = (in_list, out_list);
        // SAFETY: the script owns the run, which contains no Rust value
        // ([M1](xen_contig::rules#M1)). The lists live across the call, or Xen refuses their
        // addresses ([M3](xen_contig::rules#M3)). They are as long as the argument says, or Xen
        // stops at their first entry.
        let answer = unsafe { self.guest.xen().memory_op(MemoryOp::Exchange(&mut argument)) };

        let done = argument.nr_exchanged;
        let mut line = AnswerLine::answer(answer);
        line.add(format_args!(" done={done}"));
        line.set(" wrote in", "", written(&in_before, &in_list));
        // Xen may choose the machine frame whose number the list already contains, and that entry
        // then does not change. The entries that the count covers were written, too.
        let outs = |count: u64| ((count << input.order) >> output.order).min(FRAMES);
        let per_chunk = 1 << output.order.saturating_sub(input.order);
        let before = if answer.is_ok() { outs(count / per_chunk * per_chunk) } else { FRAMES };
        let counted = match self.guest.is_translated() || count == input.count {
            true => 0..0,
            false => before..outs(done),
        };
        let wrote = counted.fold(written(&out_before, &out_list), |wrote, word| wrote | 1 << word);
        line.set(" wrote out ", "", wrote);
        let moved = self.note_new_frames(&mut line, &out_before, &out_list, wrote, output.order);
        self.add_state(&mut line, moved);
        Some(line)
    }

    /// Returns the entries of a list.
    ///
    /// Returns `None` if a name is unknown or the list is too long.
    ///
    /// A frame that goes to Xen is named by its backing, a frame that comes by its guest frame
    /// number.
    pub fn list(&self, extents: &Extents<'_>, incoming: bool) -> Option<FrameList> {
        let (mut list, mut len) = ([u64::MAX; FRAMES as usize], 0);
        for name in &extents.names {
            let range = frames(name);
            let indices = range.clone().unwrap_or(0..=0).step_by(1 << extents.order.min(4));
            for index in indices {
                *list.get_mut(len)? = match range {
                    Some(_) if incoming => self.pfn(index).number(),
                    Some(_) => self.backing[index as usize],
                    None => self.frame(name)?,
                };
                len += 1;
            }
        }
        Some(list)
    }

    /// Returns the address `name` for a list that does not lie on the stack.
    ///
    /// A list in a frame of the run is written if the frame is mapped writable. Otherwise the frame
    /// keeps its content.
    fn place(&self, name: &str, list: &FrameList) -> Option<*mut u64> {
        match name {
            "null" => Some(core::ptr::null_mut()),
            "xen" => Some(XENS_OWN as *mut u64),
            "non-canonical" => Some(NON_CANONICAL as *mut u64),
            _ => {
                let pfn = self.pfn(*frames(name)?.start());
                let place = self.guest.list(pfn);
                let pte = self.guest.pte(pfn);
                if pte.is_present() && pte.is_writable() {
                    for (index, word) in list.iter().enumerate() {
                        // SAFETY: the word lies in a frame that the script owns
                        // ([M1](xen_contig::rules#M1)) and that is mapped writable.
                        unsafe { place.add(index).write_volatile(*word) };
                    }
                }
                Some(place)
            }
        }
    }

    /// Records the frames that Xen wrote to an out-list as backing of the run.
    ///
    /// Returns the frames of the run whose backing changed, as a bit set.
    pub fn note_new_frames(
        &mut self,
        line: &mut AnswerLine,
        before: &FrameList,
        after: &FrameList,
        wrote: u32,
        order: u32,
    ) -> u32 {
        let (first, mut moved) = (self.guest.run().number(), 0);
        let mut old = self.backing;
        for word in (0..FRAMES as usize).filter(|word| wrote >> word & 1 != 0) {
            if !after[word].is_multiple_of(1 << order) {
                line.add(format_args!(" misaligned out[{word}]"));
            }
            let index = before[word].wrapping_sub(first);
            for page in (0..1 << order).filter(|page| index.wrapping_add(*page) < FRAMES) {
                self.set_backing(index + page, after[word] + page);
                moved |= 1 << (index + page);
            }
        }
        // The second chunk may return frames that the first chunk gave to Xen.
        old.iter_mut().filter(|old| self.backing.contains(old)).for_each(|old| *old = u64::MAX);
        let both = (0..FRAMES)
            .filter(|index| moved >> index & 1 != 0 && old[*index as usize] != u64::MAX)
            .filter(|index| self.keeps(old[*index as usize], *index, moved))
            .fold(0, |both, index| both | 1 << index);
        line.set(" keeping the old ", "r", both);
        moved
    }

    /// Returns true if the domain still has the old backing of a frame of the run that moved.
    ///
    /// A debug build of Xen logs two lines for each frame that it refuses to map, so only the last
    /// frame that moved is mapped. The M2P decides for the others.
    fn keeps(&self, old: u64, index: u64, moved: u32) -> bool {
        let is_last = moved >> index == 1;
        match self.guest.is_translated() || is_last {
            true => self.owns(old),
            false => self.guest.m2p(old) == Some(self.pfn(index).number()),
        }
    }
}

/// Returns the entries that differ, as a bit set.
pub(crate) fn written(before: &FrameList, after: &FrameList) -> u32 {
    let changed = before.iter().zip(after).map(|(before, after)| before != after);
    changed.enumerate().fold(0, |set, (index, changed)| set | u32::from(changed) << index)
}

/// Returns the argument for extents whose first frames are in `list`.
pub(crate) fn reservation(extents: &Extents<'_>, list: &mut FrameList) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: extents.count,
        extent_order: extents.order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}
