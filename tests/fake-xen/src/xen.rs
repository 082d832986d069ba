//! The hypercalls of the model, made by the vCPU of the calling thread.

#![expect(unsafe_code, reason = "the trait is unsafe to implement, and multicalls carry pointers")]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use hypercall::abi::hvm::{HVMMEM_MMIO_DM, HVMMEM_RAM_RW};
use hypercall::abi::memory::{MachphysMapping, MemoryExchange, MemoryReservation};
use hypercall::ops::{
    EventChannelOp, HvmOp, MemoryOp, MulticallEntry, Pte, SchedOp, UvmFlags, VcpuOp, VersionOp,
};
use hypercall::trace::Span;
use hypercall::{Call, DomId, VirtAddr, Xen, XenErrno};
use xen_contig::sync::AtomicU64;

use crate::fault::{Cut, ExchangeFault, Fault};
use crate::guest::check_not_held;
use crate::log::{Asked, Logged};
use crate::machine::MachineState;
use crate::{shown, vcpu};

/// The beginning or the end of a span, as the hooks of the trait [`Xen`] report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The span begins.
    Enter(Span),
    /// The span ends.
    Leave(Span),
}

/// The number of `XENMEM_exchange`.
const EXCHANGE: u64 = 11;

/// The result of a call.
type Answer = Result<u64, XenErrno>;

/// The model hypervisor. Each thread calls it as a vCPU of the guest. A clone is the same machine.
#[derive(Clone, Debug)]
pub struct FakeXen {
    machine: Arc<Mutex<MachineState>>,
    /// Counts hypercalls and accesses to memory. Loom does not see the lock, so it switches to
    /// another vCPU at this atomic.
    turns: Arc<AtomicU64>,
    marks: Arc<Mutex<Vec<Mark>>>,
}

impl FakeXen {
    pub(crate) fn new(machine: MachineState) -> Self {
        Self {
            machine: Arc::new(Mutex::new(machine)),
            turns: Arc::new(AtomicU64::new(0)),
            marks: Arc::new(Mutex::new(Vec::new())),
        }
    }

    /// Arms a fault. Calls are counted from this moment.
    pub fn arm(&self, fault: Fault) {
        self.with(|machine| machine.faults.arm(Some(fault)));
    }

    /// Makes the next exchange fail inside Xen.
    pub fn arm_exchange(&self, fault: ExchangeFault) {
        self.with(|machine| machine.faults.exchange = Some(fault));
    }

    /// Disarms every fault. Returns how many faults have hit since the last [`arm`](Self::arm) or
    /// `disarm`.
    pub fn disarm(&self) -> u64 {
        self.with(|machine| {
            let hits = machine.faults.hits;
            machine.faults.arm(None);
            machine.faults.exchange = None;
            hits
        })
    }

    /// Sets whether exchanges are preempted between chunks.
    pub fn set_preempt(&self, preempt: bool) {
        self.with(|machine| machine.faults.preempt = preempt);
    }

    /// Makes every `mmuext_op` fail with `errno`, or lets every one pass again.
    pub fn refuse_flushes(&self, errno: Option<XenErrno>) {
        self.with(|machine| machine.faults.flush = errno);
    }

    /// Returns how often an exchange was preempted.
    pub fn preemptions(&self) -> u64 {
        self.with(|machine| machine.preemptions)
    }

    /// Returns how many frames the machine has.
    pub fn machine_frames(&self) -> u64 {
        self.with(|machine| machine.frames.len() as u64)
    }

    /// Returns the hypercalls since the last call of this method, in order.
    pub fn take_log(&self) -> Vec<Logged> {
        self.with(|machine| std::mem::take(&mut machine.log.calls))
    }

    /// Returns the marks of spans since the last call of this method, in order.
    pub fn take_marks(&self) -> Vec<Mark> {
        std::mem::take(&mut self.marks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, mark: Mark) {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
    }

    /// Begins the next hypercall or access.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Relaxed);
    }

    pub(crate) fn with<R>(&self, see: impl FnOnce(&mut MachineState) -> R) -> R {
        // A thread that panicked with the lock held has reported its own cause. The poison would
        // only hide it.
        see(&mut self.machine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a call: counts it, applies an armed fault, and logs it.
    fn run(
        &self,
        asked: Asked,
        run: impl FnOnce(&mut MachineState, Option<Cut>) -> Answer,
    ) -> Answer {
        self.turn();
        self.with(|machine| {
            let cut = machine.faults.next_call();
            let answer = match cut {
                Some(Cut { after: 0, errno: Some(errno) }) => Err(errno),
                cut => run(machine, cut),
            };
            machine.log.calls.push(Logged { vcpu: vcpu::current(), asked, answer });
            answer
        })
    }

    fn other(&self, name: &'static str, run: impl FnOnce(&mut MachineState) -> Answer) -> Answer {
        self.run(Asked::Other(name), |machine, _| run(machine))
    }

    fn reservation(
        &self,
        asked: Asked,
        run: impl FnOnce(&mut MachineState, Option<Cut>) -> u64,
    ) -> Answer {
        self.run(asked, |machine, cut| {
            let done = run(machine, cut);
            // With an errno, a cut returns the error although some extents are done. Xen itself
            // returns the count then.
            cut.and_then(|cut| cut.errno).map_or(Ok(done), Err)
        })
    }

    /// Runs an entry of a multicall.
    ///
    /// # Safety
    /// The requirements of the entry's call hold. The list, the counter and the argument that the entry
    /// names are live, and the list has the length that the entry says.
    unsafe fn entry(&self, entry: &MulticallEntry) -> Answer {
        let [first, second, third, fourth, ..] = entry.args();
        let mut uncounted = 0;
        let done = match (entry.op(), third) {
            // SAFETY: this function requires that the counter is live.
            (xen_sys::__HYPERVISOR_mmu_update, 1..) => unsafe { &mut *(third as *mut u32) },
            _ => &mut uncounted,
        };
        match entry.op() {
            xen_sys::__HYPERVISOR_update_va_mapping => {
                let (pte, flush) = (Pte::from_raw(second), UvmFlags::from_bits_retain(third));
                // SAFETY: this function requires what the call requires.
                unsafe { self.update_va_mapping(VirtAddr::new_truncate(first), pte, flush) }
            }
            xen_sys::__HYPERVISOR_mmu_update => {
                // SAFETY: this function requires that the list is live and has this length.
                let list = unsafe { slice(first, second) };
                // SAFETY: this function requires what the call requires.
                unsafe { self.mmu_update(list, done, DomId(fourth as u16)) }
            }
            xen_sys::__HYPERVISOR_mmuext_op => {
                // SAFETY: this function requires that the list is live and has this length.
                let list = unsafe { slice(first, second) };
                // SAFETY: this function requires what the call requires.
                unsafe { self.mmuext_op(list, done, DomId(fourth as u16)) }
            }
            xen_sys::__HYPERVISOR_memory_op if first == EXCHANGE => {
                // SAFETY: this function requires that the argument is live.
                let argument = unsafe { &mut *(second as *mut MemoryExchange) };
                // SAFETY: this function requires what the call requires.
                unsafe { self.memory_op(MemoryOp::Exchange(argument)) }
            }
            _ => Err(XenErrno::ENOSYS),
        }
    }
}

/// Returns the list of an entry.
///
/// # Safety
/// `start` is the address of `count` values of `T`, which live for `'a`.
unsafe fn slice<'a, T>(start: u64, count: u64) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: this function requires that `count` values are at `start` and live for `'a`.
    unsafe { std::slice::from_raw_parts(start as *const T, count as usize) }
}

fn extents(reservation: &MemoryReservation) -> (u64, u32) {
    (reservation.nr_extents, reservation.extent_order)
}

// SAFETY: `call` changes the modelled machine as Xen changes a real one, and returns what Xen returns.
// Of the caller's memory it accesses the arguments alone, and it keeps no pointer.
unsafe impl Xen for FakeXen {
    unsafe fn call(&self, call: &mut Call<'_>) -> Answer {
        check_not_held("a hypercall");
        let record = shown::describe(call);
        // SAFETY: the requirements of `dispatch` are those of the same call here.
        let answer = unsafe { self.dispatch(call) };
        if let Some(record) = record {
            shown::print(record, call, answer);
        }
        answer
    }

    fn enter(&self, span: &Span) {
        self.mark(Mark::Enter(*span));
    }

    fn leave(&self, span: &Span) {
        self.mark(Mark::Leave(*span));
    }
}

/// The hypercalls that have operations.
impl FakeXen {
    /// Makes a call.
    ///
    /// # Safety
    /// Those of [`Xen::call`].
    unsafe fn dispatch(&self, call: &mut Call<'_>) -> Answer {
        match call {
            Call::Memory(op) => self.memory(op),
            Call::MmuUpdate { updates, done, domain } => self
                .run(Asked::MmuUpdate { updates: updates.len() }, |machine, cut| {
                    machine.mmu_update(updates, done, *domain, cut)
                }),
            Call::UpdateVaMapping { address, pte, flush } => {
                let address = address.as_u64();
                let asked = Asked::UpdateVaMapping { address, flush: flush.flushes() };
                self.run(asked, |machine, _| {
                    machine.update_va_mapping(vcpu::current() as usize, address >> 12, *pte, *flush)
                })
            }
            Call::MmuExt { ops, done, domain } => {
                let kinds = ops.iter().map(|op| op.kind()).collect();
                self.run(Asked::MmuExt(kinds), |machine, cut| {
                    if let Some(errno) = machine.faults.flush {
                        return Err(errno);
                    }
                    machine.mmuext_op(vcpu::current() as usize, ops, done, *domain, cut)
                })
            }
            // SAFETY: `Xen::multicall` requires what the entries require.
            Call::Multicall(entries) => unsafe { self.batch(entries) },
            Call::ConsoleWrite(bytes) => self.other("console_io", |machine| {
                if !machine.domain.privileged {
                    return Err(XenErrno::EPERM);
                }
                machine.console.extend_from_slice(bytes);
                Ok(0)
            }),
            Call::Sched(op) => {
                if *op == SchedOp::Yield {
                    vcpu::give_way();
                }
                self.other("sched_op", |_| Ok(0))
            }
            Call::EventChannel(op) => self.event_channel(*op),
            Call::Version(op) => self.version(op),
            Call::Vcpu { op, vcpu } => self.other("vcpu_op", |machine| match op {
                _ if *vcpu as usize >= machine.tlbs.len() => Err(XenErrno::ENOENT),
                VcpuOp::IsUp => Ok(1),
                _ => Ok(0),
            }),
            Call::SetTrapTable(_) => self.other("set_trap_table", |_| Ok(0)),
            Call::Hvm(op) => self.hvm(*op),
            Call::SetHvmParam { .. } => self.translated_only(|_| Ok(0)),
            _ => Err(XenErrno::ENOSYS),
        }
    }

    fn memory(&self, op: &mut MemoryOp<'_>) -> Answer {
        match op {
            MemoryOp::Exchange(arg) => {
                let (input, output) = (extents(&arg.input), extents(&arg.output));
                let bits = arg.output.mem_flags & 0xff;
                self.run(Asked::Exchange { input, output, bits }, |machine, _| {
                    machine.exchange(arg)
                })
            }
            MemoryOp::DecreaseReservation(arg) => self
                .reservation(Asked::Decrease { extents: extents(arg) }, |machine, cut| {
                    machine.decrease(arg, cut)
                }),
            MemoryOp::PopulatePhysmap(arg) => self.reservation(
                Asked::Populate { extents: extents(arg), bits: arg.mem_flags & 0xff },
                |machine, cut| machine.populate(arg, cut, true),
            ),
            MemoryOp::IncreaseReservation(arg) => self.reservation(
                Asked::Populate { extents: extents(arg), bits: arg.mem_flags & 0xff },
                |machine, cut| machine.populate(arg, cut, false),
            ),
            MemoryOp::CurrentReservation(domain) => self.other("current_reservation", |machine| {
                machine.caller(*domain).map(|()| machine.domain.pages)
            }),
            MemoryOp::MaximumReservation(domain) => self.other("maximum_reservation", |machine| {
                machine.caller(*domain).map(|()| machine.domain.max_pages)
            }),
            MemoryOp::MaximumRamPage => {
                self.other("maximum_ram_page", |machine| Ok(machine.frames.len() as u64))
            }
            MemoryOp::MachphysMapping(mapping) => self.other("machphys_mapping", |machine| {
                let v_start = machine.m2p.as_ptr() as u64;
                let max_mfn = machine.m2p.len() as u64 - 1;
                let v_end = v_start + machine.m2p.len() as u64 * 8;
                **mapping = MachphysMapping { v_start, v_end, max_mfn };
                Ok(0)
            }),
            _ => self.other("memory_op", |_| Err(XenErrno::ENOSYS)),
        }
    }

    /// Runs a multicall, each entry as a call of its own.
    ///
    /// # Safety
    /// Each entry meets the requirements of [`entry`](Self::entry).
    unsafe fn batch(&self, entries: &mut [MulticallEntry]) -> Answer {
        self.run(Asked::Multicall { entries: entries.len() }, |_, _| Ok(0))?;
        for entry in entries {
            // SAFETY: this function requires that each entry meets the requirements of `entry`.
            let answer = unsafe { self.entry(entry) };
            if answer.is_err() && entry.op() == xen_sys::__HYPERVISOR_mmuext_op {
                self.with(|machine| machine.faults.flush_refused = true);
            }
            entry.answer(answer.map_or_else(|errno| -i64::from(errno.raw()), |done| done as i64));
        }
        self.with(|machine| machine.faults.flush_refused = false);
        Ok(0)
    }

    fn event_channel(&self, op: EventChannelOp) -> Answer {
        match op {
            EventChannelOp::Send(_) => self.run(Asked::Send, |_, _| Ok(0)),
            EventChannelOp::BindVirq { .. }
            | EventChannelOp::BindIpi { .. }
            | EventChannelOp::AllocUnbound { .. } => self.other("event_channel_op", |machine| {
                machine.next_port += 1;
                Ok(u64::from(machine.next_port - 1))
            }),
            EventChannelOp::Close(_) | EventChannelOp::Unmask(_) => {
                self.other("event_channel_op", |_| Ok(0))
            }
            _ => self.other("event_channel_op", |_| Err(XenErrno::ENOSYS)),
        }
    }

    fn version(&self, op: &mut VersionOp<'_>) -> Answer {
        self.other("xen_version", |machine| match op {
            VersionOp::Version => Ok(4 << 16 | 17),
            VersionOp::ExtraVersion(text) => {
                **text = *b".7-model\0\0\0\0\0\0\0\0";
                Ok(0)
            }
            VersionOp::Features(info) => {
                // Bit 2 is auto_translated_physmap. Bit 5 is mmu_pt_update_preserve_ad, for PV alone.
                let of_kind = if machine.domain.is_translated() { 1 << 2 } else { 1 << 5 };
                info.submap = if info.submap_idx == 0 { of_kind } else { 0 };
                Ok(0)
            }
            _ => Err(XenErrno::ENOSYS),
        })
    }

    fn hvm(&self, op: HvmOp) -> Answer {
        self.translated_only(|machine| match op {
            HvmOp::GetParam(_) => Ok(0),
            HvmOp::FlushTlbs => {
                machine.tlbs.iter_mut().for_each(|tlb| tlb.flush());
                Ok(0)
            }
            HvmOp::GetMemType(pfn) => match machine.backing(pfn.number()) {
                Some(_) => Ok(HVMMEM_RAM_RW),
                None => Ok(HVMMEM_MMIO_DM),
            },
            _ => Err(XenErrno::ENOSYS),
        })
    }

    fn translated_only(&self, run: impl FnOnce(&mut MachineState) -> Answer) -> Answer {
        self.other("hvm_op", |machine| match machine.domain.is_translated() {
            true => run(machine),
            false => Err(XenErrno::ENOSYS),
        })
    }
}
