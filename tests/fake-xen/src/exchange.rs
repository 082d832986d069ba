//! `XENMEM_exchange`, step by step as `memory_exchange` in Xen's `common/memory.c` goes.
//!
//! Xen does not check whether a TLB still reaches the frames that it takes. The model does, and stops
//! the test: without the check only a much later access could show the error. If a flush was refused
//! earlier in the same multicall, the guest could not know, so it is that later access that counts.

use hypercall::XenErrno;
use hypercall::abi::memory::MemoryExchange;

use crate::fault::{ExchangeFault, Lie};
use crate::frame::Owner;
use crate::machine::MachineState;

/// `XENMEMF_exact_node_request`.
const EXACT_NODE: u32 = 1 << 17;

/// `MAX_NUMNODES`, which is also the field's value for the last of them.
const NODES: u32 = 64;

/// Whether the caller demands memory of a NUMA node that the machine does not have.
#[derive(Clone, Copy, Debug)]
struct AbsentNode(bool);

/// An errno for one extent, which does not stop the others of its chunk.
type Late = Option<XenErrno>;

impl MachineState {
    /// Runs an exchange. An armed [`Lie`] replaces the exchange, the answer, or both.
    pub fn exchange(&mut self, arg: &mut MemoryExchange) -> Result<u64, XenErrno> {
        let Some(ExchangeFault::Lie(lie)) = self.faults.exchange.clone() else {
            return self.honest_exchange(arg);
        };
        self.faults.exchange = None;
        self.faults.hits += 1;
        let Lie { commit, answer, count, out } = lie;
        if commit {
            self.honest_exchange(arg)?;
        }
        arg.nr_exchanged = count.unwrap_or(arg.nr_exchanged);
        if let Some(first) = out {
            self.write(arg.output.extent_start, 0, first)?;
        }
        answer
    }

    fn honest_exchange(&mut self, arg: &mut MemoryExchange) -> Result<u64, XenErrno> {
        // A preempted exchange starts over from its argument, which holds the progress.
        loop {
            let (in_order, out_order) = (arg.input.extent_order, arg.output.extent_order);
            self.examine(arg)?;
            if arg.nr_exchanged == arg.input.nr_extents {
                return Ok(0);
            }
            self.reachable_lists(arg)?;
            let elsewhere = self.node(arg.output.mem_flags)?;
            self.target(arg)?;
            let in_shift = out_order.saturating_sub(in_order);
            let chunks = arg.input.nr_extents >> in_shift;
            let first = arg.nr_exchanged >> in_shift;
            let mut preempted = false;
            for chunk in first..chunks {
                if chunk != first && self.faults.preempt {
                    self.preemptions += 1;
                    arg.nr_exchanged = chunk << in_shift;
                    preempted = true;
                    break;
                }
                match self.chunk(arg, chunk, elsewhere) {
                    Ok(true) => {}
                    Ok(false) => {
                        arg.nr_exchanged = chunk << in_shift;
                        return Ok(0);
                    }
                    Err(errno) => {
                        arg.nr_exchanged = chunk << in_shift;
                        return Err(errno);
                    }
                }
            }
            if !preempted {
                arg.nr_exchanged = arg.input.nr_extents;
                return Ok(0);
            }
        }
    }

    /// The order limit, then the sanity of the numbers.
    fn examine(&self, arg: &MemoryExchange) -> Result<(), XenErrno> {
        let (input, output) = (&arg.input, &arg.output);
        if input.extent_order.max(output.extent_order) > self.domain.max_order {
            return Err(XenErrno::EPERM);
        }
        let size = |count: u64, order: u32| count.checked_mul(1_u64.checked_shl(order)?);
        let sizes = (
            size(input.nr_extents, input.extent_order),
            size(output.nr_extents, output.extent_order),
        );
        let sane = arg.nr_exchanged <= input.nr_extents
            && input.domid == output.domid
            && sizes.0.is_some()
            && sizes.0 == sizes.1;
        if sane { Ok(()) } else { Err(XenErrno::EINVAL) }
    }

    fn reachable_lists(&self, arg: &MemoryExchange) -> Result<(), XenErrno> {
        let (input, output, done) = (&arg.input, &arg.output, arg.nr_exchanged);
        let gone = match input.extent_order <= output.extent_order {
            true => done >> (output.extent_order - input.extent_order),
            false => done << (input.extent_order - output.extent_order),
        };
        let fine = self.plausible(input.extent_start, done, input.nr_extents)
            && self.plausible(output.extent_start, gone, output.nr_extents);
        if fine { Ok(()) } else { Err(XenErrno::EFAULT) }
    }

    /// Checks the NUMA node on a machine with one node (`propagate_node`).
    fn node(&self, mem_flags: u32) -> Result<AbsentNode, XenErrno> {
        let (node, exact) = (mem_flags >> 8 & 0xff, mem_flags & EXACT_NODE != 0);
        let fine = node == 0 || if self.domain.privileged { node <= NODES } else { !exact };
        match fine {
            true => Ok(AbsentNode(exact && node > 1)),
            false => Err(XenErrno::EINVAL),
        }
    }

    fn target(&self, arg: &MemoryExchange) -> Result<(), XenErrno> {
        if arg.input.domid == crate::NEIGHBOUR {
            return Err(XenErrno::EPERM);
        }
        if !self.domain.is_self(arg.input.domid) {
            return Err(XenErrno::ESRCH);
        }
        self.domain.exchange_denied.map_or(Ok(()), Err)
    }

    /// One chunk: the larger of an in-extent and an out-extent. `Ok(false)` for a dying domain.
    fn chunk(
        &mut self,
        arg: &MemoryExchange,
        chunk: u64,
        AbsentNode(elsewhere): AbsentNode,
    ) -> Result<bool, XenErrno> {
        let (in_order, out_order) = (arg.input.extent_order, arg.output.extent_order);
        let in_count = 1_u64 << out_order.saturating_sub(in_order);
        let out_count = 1_u64 << in_order.saturating_sub(out_order);
        let mut stolen = Vec::new();
        let mut taken = Vec::new();
        let gathered = self
            .steal_chunk(arg, chunk * in_count..(chunk + 1) * in_count, &mut stolen)
            .and_then(|()| {
                for index in chunk * out_count..(chunk + 1) * out_count {
                    // No frame gets its own Pfn as its number: a test could not see a mix-up of the two.
                    let avoid = self.peek(arg, index);
                    let limit = self.frame_limit(arg.output.mem_flags);
                    let limit = if elsewhere { 0 } else { limit };
                    taken.push(self.heap.take(out_order, limit, avoid).ok_or(XenErrno::ENOMEM)?);
                }
                Ok(())
            });
        if let Err(errno) = gathered {
            stolen.into_iter().for_each(|mfn| self.reassign(mfn));
            taken.into_iter().for_each(|first| self.heap.give(first, out_order));
            return Err(errno);
        }

        // The commit point.
        for mfn in stolen {
            self.unplace(mfn);
            self.free(mfn, 0);
        }
        let mut late = None;
        for (index, first) in (chunk * out_count..).zip(taken) {
            if self.faulty(|fault| *fault == ExchangeFault::Dying) {
                self.heap.give(first, out_order);
                self.domain.pages -= 1 << out_order;
                return Ok(false);
            }
            self.assign(first, out_order);
            late = self.hand_over(arg, index, first).or(late);
        }
        late.map_or(Ok(true), Err)
    }

    fn steal_chunk(
        &mut self,
        arg: &MemoryExchange,
        extents: std::ops::Range<u64>,
        stolen: &mut Vec<u64>,
    ) -> Result<(), XenErrno> {
        for index in extents {
            if self.faulty(|fault| *fault == ExchangeFault::InUnreadable(index)) {
                return Err(XenErrno::EFAULT);
            }
            let first = self.read(arg.input.extent_start, index)?;
            for gfn in first..first.saturating_add(1 << arg.input.extent_order) {
                stolen.push(self.steal(gfn, stolen.len() as u64)?);
            }
        }
        Ok(())
    }

    /// Takes a frame from the domain if it has no references (`steal_page`). Returns its machine frame.
    fn steal(&mut self, gfn: u64, count: u64) -> Result<u64, XenErrno> {
        let mfn = match self.domain.is_translated() {
            true => self.backing(gfn).ok_or(XenErrno::EINVAL)?,
            false => gfn,
        };
        if self.domain.is_translated() && !self.domain.exchange_translated {
            return Err(XenErrno::EOPNOTSUPP);
        }
        let frame = self.own(mfn).ok_or(XenErrno::EINVAL)?;
        if frame.special || frame.references != 0 || !frame.allocated {
            return Err(XenErrno::EINVAL);
        }
        let errno = match &self.faults.exchange {
            Some(ExchangeFault::IommuUnmap(index, errno)) if *index == count => Some(*errno),
            _ => None,
        };
        if let Some(errno) = errno {
            self.faulty(|_| true);
            return Err(errno);
        }
        for (vcpu, tlb) in self.tlbs.iter().enumerate() {
            let stale = tlb.iter().find(|(_, held)| *held == mfn);
            if let Some((page, _)) = stale.filter(|_| !self.faults.flush_refused) {
                self.violation(&format!(
                    "mfn {mfn:#x} is given up while vCPU {vcpu} may still reach it at {:#x}: \
                     no flush came before the exchange",
                    page << 12
                ));
            }
        }
        let frame = &mut self.frames[mfn as usize];
        frame.owner = Owner::Stolen;
        frame.allocated = false;
        self.dirty += u64::from(frame.content.uniform() != Some(0));
        Ok(mfn)
    }

    fn reassign(&mut self, mfn: u64) {
        let frame = &mut self.frames[mfn as usize];
        frame.renew(Owner::Domain(self.domain.id));
        self.dirty -= u64::from(frame.content.uniform() != Some(0));
    }

    /// Reports a new extent to the guest and the M2P. A translated guest gets it at the place that the
    /// out-list names, which Xen leaves as it is. A failure here cannot be rolled back.
    fn hand_over(&mut self, arg: &MemoryExchange, index: u64, first: u64) -> Late {
        if self.faulty(|fault| *fault == ExchangeFault::OutUnreadable(index)) {
            return Some(XenErrno::EFAULT);
        }
        let pfn = match self.read(arg.output.extent_start, index) {
            Ok(pfn) => pfn,
            Err(errno) => return Some(errno),
        };
        let refused = match &self.faults.exchange {
            Some(ExchangeFault::IommuMap(at, errno)) if *at == index => Some(*errno),
            _ => None,
        };
        match refused {
            Some(_) => _ = self.faulty(|_| true),
            None => {
                let spared = self.spared_page();
                if !self.place(pfn, first, 1 << arg.output.extent_order, spared) {
                    return Some(XenErrno::EINVAL);
                }
                if spared.is_some() {
                    return Some(XenErrno::ENOMEM);
                }
            }
        }
        if self.domain.is_translated() {
            return refused;
        }
        if self.faulty(|fault| *fault == ExchangeFault::OutUnwritable(index))
            || self.write(arg.output.extent_start, index, first).is_err()
        {
            return Some(XenErrno::EFAULT);
        }
        refused
    }

    /// The frame of the next extent that does not get its place, if that is armed.
    fn spared_page(&mut self) -> Option<u64> {
        let Some(ExchangeFault::Hole(page)) = self.faults.exchange else { return None };
        self.faulty(|_| true).then_some(page)
    }

    /// Takes the armed fault if it is the one meant.
    fn faulty(&mut self, meant: impl FnOnce(&ExchangeFault) -> bool) -> bool {
        let hit = self.faults.exchange.as_ref().is_some_and(meant);
        if hit {
            self.faults.exchange = None;
            self.faults.hits += 1;
        }
        hit
    }

    fn peek(&self, arg: &MemoryExchange, index: u64) -> u64 {
        self.read(arg.output.extent_start, index).unwrap_or(u64::MAX)
    }
}
