//! A hypervisor that records every call and changes none.

use x86_64::VirtAddr;

use crate::ops::{
    EventChannelOp, HvmOp, MemoryOp, MmuExtOp, MmuUpdate, MulticallEntry, PhysdevOp, Pte, SchedOp,
    SegmentBase, TrapInfo, UvmFlags, VcpuOp, VersionOp,
};
use crate::sync::Mutex;
use crate::trace::{Call, Entry, Level, Ring, Span, Summary};
use crate::{DomId, Xen, XenErrno};

/// Tells the time for a trace: any function that answers a number does. A type without a value in
/// it keeps a static [`Traced`] free of addresses, and so out of an image.
pub trait Clock {
    /// The time, in any unit.
    fn now(&self) -> u64;
}

impl<F: Fn() -> u64> Clock for F {
    fn now(&self) -> u64 {
        self()
    }
}

/// Wraps a hypervisor; every call goes through unchanged and is recorded when it comes back.
///
/// The last [`RING_ENTRIES`](crate::trace::RING_ENTRIES) calls and the totals are kept at every
/// level. At [`Level::Full`] each entry also goes to the sink that [`show`](Self::show) was given.
/// A sink that makes hypercalls itself must make them past this wrapper.
#[derive(Debug)]
pub struct Traced<X, C = fn() -> u64> {
    inner: X,
    clock: C,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sequence: u64,
    level: Level,
    sink: Option<fn(&Entry)>,
    ring: Ring,
    summary: Summary,
}

impl<X: Xen, C: Clock> Traced<X, C> {
    /// Records what goes to `inner`, with the time that `clock` tells.
    pub const fn new(inner: X, clock: C) -> Self {
        Self {
            inner,
            clock,
            state: Mutex::new(State {
                sequence: 0,
                level: Level::Off,
                sink: None,
                ring: Ring::new(),
                summary: Summary::new(),
            }),
        }
    }

    /// Sets how much is shown and where a full trace goes.
    pub fn show(&self, level: Level, sink: fn(&Entry)) {
        let mut state = self.state.lock();
        state.level = level;
        state.sink = Some(sink);
    }

    /// How much is shown.
    pub fn level(&self) -> Level {
        self.state.lock().level
    }

    /// The totals so far.
    pub fn summary(&self) -> Summary {
        self.state.lock().summary
    }

    /// Hands the last entries to `see`, oldest first. Returns false where they are being written,
    /// as they may be for a panic that came in the middle.
    pub fn recent(&self, see: impl FnMut(&Entry)) -> bool {
        let Some(state) = self.state.try_lock() else { return false };
        state.ring.iter().for_each(see);
        true
    }

    /// Locks, and does not mask events: a handler of events or traps must make no traced hypercall,
    /// or it may wait for what it has interrupted.
    fn record(&self, time: u64, call: Call, result: Result<u64, XenErrno>, done: Option<u64>) {
        let (entry, sink) = {
            let mut state = self.state.lock();
            let entry = Entry { sequence: state.sequence, time, call, result, done };
            state.sequence += 1;
            state.summary.count(&entry.call, result);
            state.ring.push(entry.clone());
            (entry, state.sink.filter(|_| state.level == Level::Full))
        };
        // Outside the lock: a sink takes its time.
        if let Some(sink) = sink {
            sink(&entry);
        }
    }

    fn plain(
        &self,
        call: Call,
        make: impl FnOnce(&X) -> Result<u64, XenErrno>,
    ) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        let result = make(&self.inner);
        self.record(time, call, result, None);
        result
    }
}

// SAFETY: each method is the inner one, called once with the arguments that came in; what comes
// back is returned as it is.
unsafe impl<X: Xen, C: Clock> Xen for Traced<X, C> {
    unsafe fn memory_op(&self, op: MemoryOp<'_>) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        let call = Call::memory(&op);
        let (result, done) = match op {
            MemoryOp::Exchange(exchange) => {
                // SAFETY: the caller's.
                let result = unsafe { self.inner.memory_op(MemoryOp::Exchange(exchange)) };
                (result, Some(exchange.nr_exchanged))
            }
            // SAFETY: the caller's.
            op => (unsafe { self.inner.memory_op(op) }, None),
        };
        self.record(time, call, result, done);
        result
    }

    unsafe fn mmu_update(
        &self,
        updates: &[MmuUpdate],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        // SAFETY: the caller's.
        let result = unsafe { self.inner.mmu_update(updates, done, domain) };
        self.record(time, Call::mmu_update(updates), result, Some((*done).into()));
        result
    }

    unsafe fn update_va_mapping(
        &self,
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    ) -> Result<u64, XenErrno> {
        self.plain(Call::update_va_mapping(address, pte, flush), |xen| {
            // SAFETY: the caller's.
            unsafe { xen.update_va_mapping(address, pte, flush) }
        })
    }

    unsafe fn mmuext_op(
        &self,
        ops: &[MmuExtOp],
        done: &mut u32,
        domain: DomId,
    ) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        // SAFETY: the caller's.
        let result = unsafe { self.inner.mmuext_op(ops, done, domain) };
        self.record(time, Call::mmuext_op(ops), result, Some((*done).into()));
        result
    }

    unsafe fn multicall(&self, entries: &mut [MulticallEntry]) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        let call = Call::multicall(entries);
        // SAFETY: the caller's.
        let result = unsafe { self.inner.multicall(entries) };
        let succeeded = entries.iter().filter(|entry| entry.result().is_ok()).count();
        self.record(time, call, result, Some(succeeded as u64));
        result
    }

    fn console_write(&self, bytes: &[u8]) -> Result<u64, XenErrno> {
        self.plain(Call::console_write(bytes), |xen| xen.console_write(bytes))
    }

    fn sched_op(&self, op: SchedOp) -> Result<u64, XenErrno> {
        self.plain(Call::sched_op(op), |xen| xen.sched_op(op))
    }

    fn event_channel_op(&self, op: EventChannelOp) -> Result<u64, XenErrno> {
        self.plain(Call::event_channel_op(op), |xen| xen.event_channel_op(op))
    }

    fn xen_version(&self, op: VersionOp<'_>) -> Result<u64, XenErrno> {
        self.plain(Call::xen_version(&op), |xen| xen.xen_version(op))
    }

    unsafe fn vcpu_op(&self, op: VcpuOp<'_>, vcpu: u32) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        self.plain(Call::vcpu_op(&op, vcpu), |xen| unsafe { xen.vcpu_op(op, vcpu) })
    }

    unsafe fn set_trap_table(&self, table: &[TrapInfo]) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        self.plain(Call::set_trap_table(table.len()), |xen| unsafe { xen.set_trap_table(table) })
    }

    unsafe fn set_callbacks(&self, event: VirtAddr, failsafe: VirtAddr) -> Result<u64, XenErrno> {
        self.plain(Call::set_callbacks(event, failsafe), |xen| {
            // SAFETY: the caller's.
            unsafe { xen.set_callbacks(event, failsafe) }
        })
    }

    unsafe fn set_segment_base(&self, base: SegmentBase) -> Result<u64, XenErrno> {
        // SAFETY: the caller's.
        self.plain(Call::set_segment_base(base), |xen| unsafe { xen.set_segment_base(base) })
    }

    fn hvm_op(&self, op: HvmOp) -> Result<u64, XenErrno> {
        self.plain(Call::hvm_op(op), |xen| xen.hvm_op(op))
    }

    fn physdev_op(&self, op: PhysdevOp) -> Result<u64, XenErrno> {
        self.plain(Call::physdev_op(op), |xen| xen.physdev_op(op))
    }

    #[inline]
    fn enter(&self, span: Span) {
        self.inner.enter(span);
    }

    #[inline]
    fn leave(&self, span: Span) {
        self.inner.leave(span);
    }
}
