//! `exchange`: XENMEM_exchange with any argument.

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::MemoryOp;
use hypercall::{DomId, Xen};

use crate::line::Line;
use crate::scene::{Call, List, Scene};
use crate::words::{Extents, Words, cut, extents, frames, number};
use crate::{FRAMES, Ground};

/// `XENMEMF_exact_node_request`.
const EXACT_NODE: u32 = 1 << 17;

/// The first byte of the address space that Xen keeps for itself (`HYPERVISOR_VIRT_START`).
const XENS_OWN: u64 = 0xffff_8000_0000_0000;

/// The first address that is none (`__addr_ok`).
const NON_CANONICAL: u64 = 1 << 47;

impl<G: Ground> Scene<'_, G> {
    /// `exchange 8x0 r0-r7 for 1x3 r0 bits=30 node=1 exact=node count=0 domain=self in@=r2`
    pub fn exchange(&mut self, mut words: Words<'_>) -> Call {
        let limit = self.ground.limit();
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
        // What is longer than the lists here begins with a frame that Xen does not take.
        let long = |extents: &Extents<'_>| extents.count > FRAMES;
        let stops = input.names.first() == Some(&"beyond") && argument.nr_exchanged == 0;
        if (long(&input) || long(&output)) && !stops {
            return None;
        }
        let count = argument.nr_exchanged;
        let (in_before, out_before) = (in_list, out_list);
        // SAFETY: the run is the script's, and nothing of Rust's lies in it (M1). The lists live
        // across the call or lie where Xen finds them out (M3); they are as long as the argument
        // says, or Xen stops at their first entry.
        let answer = unsafe { self.ground.xen().memory_op(MemoryOp::Exchange(&mut argument)) };

        let done = argument.nr_exchanged;
        let mut line = Line::answer(answer);
        line.add(format_args!(" done={done}"));
        line.set(" wrote in", "", written(&in_before, &in_list));
        // A new frame may by chance have the number of the guest frame that it is for: what the
        // count says is done has been written, too.
        let outs = |count: u64| ((count << input.order) >> output.order).min(FRAMES);
        let per_chunk = 1 << output.order.saturating_sub(input.order);
        let before = if answer.is_ok() { outs(count / per_chunk * per_chunk) } else { FRAMES };
        let counted = match self.ground.is_translated() || count == input.count {
            true => 0..0,
            false => before..outs(done),
        };
        let wrote = counted.fold(written(&out_before, &out_list), |wrote, word| wrote | 1 << word);
        line.set(" wrote out ", "", wrote);
        let moved = self.take_over(&mut line, &out_before, &out_list, wrote, output.order);
        self.tell(&mut line, moved);
        Some(line)
    }

    /// The words of a list: frames that go by what is beneath them, frames that come by their own
    /// numbers.
    pub fn list(&self, extents: &Extents<'_>, comes: bool) -> Option<List> {
        let (mut list, mut len) = ([u64::MAX; FRAMES as usize], 0);
        for name in &extents.names {
            let range = frames(name);
            let indices = range.clone().unwrap_or(0..=0).step_by(1 << extents.order.min(4));
            for index in indices {
                *list.get_mut(len)? = match range {
                    Some(_) if comes => self.pfn(index).number(),
                    Some(_) => self.beneath[index as usize],
                    None => self.frame(name)?,
                };
                len += 1;
            }
        }
        Some(list)
    }

    /// Where a list lies that does not lie on the stack. One that lies in a frame of the run is
    /// written while the frame is mapped writable, and else is what it was.
    fn place(&self, name: &str, list: &List) -> Option<*mut u64> {
        match name {
            "null" => Some(core::ptr::null_mut()),
            "xen" => Some(XENS_OWN as *mut u64),
            "non-canonical" => Some(NON_CANONICAL as *mut u64),
            _ => {
                let pfn = self.pfn(*frames(name)?.start());
                let place = self.ground.list(pfn);
                let pte = self.ground.pte(pfn);
                if pte.is_present() && pte.is_writable() {
                    for (index, word) in list.iter().enumerate() {
                        // SAFETY: within the frame, which is the script's (M1) and mapped.
                        unsafe { place.add(index).write_volatile(*word) };
                    }
                }
                Some(place)
            }
        }
    }

    /// Takes the frames that Xen wrote to an out-list for what is beneath the run now. Answers of
    /// which frames that is so.
    pub fn take_over(
        &mut self,
        line: &mut Line,
        before: &List,
        after: &List,
        wrote: u32,
        order: u32,
    ) -> u32 {
        let (first, mut moved) = (self.ground.run().number(), 0);
        let mut old = self.beneath;
        for word in (0..FRAMES as usize).filter(|word| wrote >> word & 1 != 0) {
            if !after[word].is_multiple_of(1 << order) {
                line.add(format_args!(" misaligned out[{word}]"));
            }
            let index = before[word].wrapping_sub(first);
            for page in (0..1 << order).filter(|page| index.wrapping_add(*page) < FRAMES) {
                self.adopt(index + page, after[word] + page);
                moved |= 1 << (index + page);
            }
        }
        // What went in with the first chunk may have come out with the second.
        old.iter_mut().filter(|old| self.beneath.contains(old)).for_each(|old| *old = u64::MAX);
        let kept = (0..FRAMES).filter(|index| moved >> index & 1 != 0);
        let mut both = 0;
        for index in kept.filter(|index| old[*index as usize] != u64::MAX) {
            both |= u32::from(self.is_ours(old[index as usize])) << index;
        }
        line.set(" keeping the old ", "r", both);
        moved
    }
}

/// The words that have changed.
pub(crate) fn written(before: &List, after: &List) -> u32 {
    let changed = before.iter().zip(after).map(|(before, after)| before != after);
    changed.enumerate().fold(0, |set, (index, changed)| set | u32::from(changed) << index)
}

/// Extents whose first frames are in `list`.
pub(crate) fn reservation(extents: &Extents<'_>, list: &mut List) -> MemoryReservation {
    MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: extents.count,
        extent_order: extents.order,
        mem_flags: 0,
        domid: DomId::SELF,
    }
}
