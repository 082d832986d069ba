//! A hypervisor that records every call and changes none.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::sync::Mutex;
use crate::trace::{
    CallRecord, Filter, ListKind, Lists, Span, Summary, TraceEntry, TraceRecord, TraceState,
};
use crate::{Call, Xen, XenErrno};

/// What a tracer needs from the kernel. A function that returns a `u64` is one that reads no memory.
///
/// A type without a value, instead of a function, keeps a static [`Traced`] all zeros, so that it
/// takes no room in an image.
pub trait TraceHost {
    /// Returns the time in ticks, such as the time-stamp counter. [`Timescale`](crate::trace::Timescale)
    /// says what they mean. What ends earlier than it began, because the clock stepped back, took no
    /// time.
    fn now(&self) -> u64;

    /// Reads a word of the arguments of a hypercall, which may lie at any address. Returns `None` if
    /// the word cannot be read; the trace then lacks frames.
    ///
    /// The default reads nothing. An implementation must survive an address that is not mapped:
    /// a kernel may pass such an address to Xen on purpose.
    fn read(&self, _word: *const u64) -> Option<u64> {
        None
    }
}

impl<F: Fn() -> u64> TraceHost for F {
    fn now(&self) -> u64 {
        self()
    }
}

/// The number of records of a list of frames. What follows is cut, and the cut is named.
const RECORDS: usize = 8;

/// A wrapper that issues every hypercall unchanged and records it when it returns.
///
/// It keeps totals, and the newest records in a ring that [`record_into`](Self::record_into) gives
/// it. [`take`](Self::take) removes the oldest record, for example to print it. With
/// [`set_details`](Self::set_details) it also records spans and the frames of an exchange, and
/// folds equal calls.
///
/// A call takes a spin lock for the time of recording it, and does not mask events. A handler of
/// events or exceptions must therefore not call it: it could wait for the code that it interrupts.
///
/// Calls and spans of one tracer come from one vCPU. Other vCPUs may read it.
#[derive(Debug)]
pub struct Traced<X, H = fn() -> u64> {
    inner: X,
    host: H,
    details: AtomicBool,
    state: Mutex<TraceState>,
}

impl<X: Xen, H: TraceHost> Traced<X, H> {
    /// Makes a tracer of the calls to `inner`, without a ring and without details.
    pub const fn new(inner: X, host: H) -> Self {
        Self { inner, host, details: AtomicBool::new(false), state: Mutex::new(TraceState::new()) }
    }

    /// Gives the tracer a ring, and moves into it what the ring before held.
    pub fn record_into(&self, slots: &'static mut [Option<TraceRecord>]) {
        self.state.lock().ring.replace(slots);
    }

    /// Sets the hypercalls that are recorded in the ring. A multicall is recorded if one of its
    /// entries is. The totals count all hypercalls.
    pub fn set_filter(&self, filter: Filter) {
        self.state.lock().filter = filter;
    }

    /// Sets whether spans and frames are recorded, and equal calls folded. Call it outside of all
    /// spans.
    pub fn set_details(&self, details: bool) {
        self.details.store(details, Ordering::Relaxed);
    }

    /// Returns true if spans and frames are recorded.
    pub fn has_details(&self) -> bool {
        self.details.load(Ordering::Relaxed)
    }

    /// Returns the number of records that the ring holds.
    pub fn capacity(&self) -> usize {
        self.state.lock().ring.capacity()
    }

    /// Returns the totals so far.
    pub fn summary(&self) -> Summary {
        self.state.lock().summary.clone()
    }

    /// Returns the number of calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Returns the time of the oldest record that was not taken.
    pub fn next_time(&self) -> Option<u64> {
        self.state.lock().ring.peek().map(|record| record.time().unwrap_or(0))
    }

    /// Takes the oldest record.
    pub fn take(&self) -> Option<TraceRecord> {
        self.state.lock().ring.take()
    }

    /// Returns the number of records in the ring that were not taken.
    pub fn waiting(&self) -> u64 {
        self.state.lock().ring.waiting()
    }

    /// Returns the number of records that were overwritten since the last call of this method, before
    /// they were taken.
    pub fn take_lost(&self) -> u64 {
        self.state.lock().ring.take_lost()
    }

    /// Calls `visit` with each of the last `count` records, taken or not, oldest first.
    ///
    /// Returns false, without a visit, if another vCPU or the interrupted code is recording a call.
    /// It never waits, so a panic may call it.
    pub fn recent(&self, count: usize, visit: impl FnMut(&TraceRecord)) -> bool {
        let Some(state) = self.state.try_lock() else { return false };
        state.ring.recent(count).for_each(visit);
        true
    }

    #[inline(never)]
    fn record(&self, entry: &mut TraceEntry) {
        let mut state = self.state.lock();
        state.count(entry);
        if state.filter.admits(&entry.call)
            && let Some(slot) = state.ring.next_slot()
        {
            *slot = Some(TraceRecord::Call(*entry));
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_with_details(&self, span: &Span) {
        let now = self.host.now();
        self.state.lock().enter(*span, now);
    }

    #[cold]
    #[inline(never)]
    fn leave_with_details(&self) {
        let now = self.host.now();
        self.state.lock().leave(now);
    }

    /// Makes a call and records it with its frames.
    ///
    /// # Safety
    /// Those of [`Xen::call`].
    #[inline(never)]
    unsafe fn call_with_details(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        let mut record = CallRecord::of(call);
        let lists = Lists::of(call, &mut record, |word| self.host.read(word));
        let read = |word| self.host.read(word);
        let mut at = None;
        // Xen overwrites this list, if the call also returns frames.
        if let Some(list) = lists.at {
            list.record(0, ListKind::At, 1, read, |part| at = Some(part));
        }
        let reports_done = call.reports_done();
        let start = self.host.now();
        // SAFETY: the requirements of `call` are those of the same call here.
        let result = unsafe { self.inner.call(call) };
        let duration = self.host.now().saturating_sub(start);
        let mut entry = TraceEntry {
            sequence: 0,
            start,
            duration,
            times: 1,
            phase: None,
            call: record,
            result,
            done: if reports_done { call.done() } else { None },
            failed: call.failed_entry(),
        };
        let mut state = self.state.lock();
        state.count(&mut entry);
        if !state.filter.admits(&entry.call) {
            return result;
        }
        state.spans.iter_mut().for_each(|span| span.has_calls = true);
        if let Some(TraceRecord::Call(last)) = state.ring.last_mut()
            && last.equals(&entry)
        {
            last.times += 1;
            last.duration += entry.duration;
            return result;
        }
        state.ring.push(TraceRecord::Call(entry));
        let sequence = entry.sequence;
        let ring = &mut state.ring;
        if let Some(list) = lists.input {
            list.record(sequence, ListKind::In, RECORDS, read, |part| {
                ring.push(TraceRecord::Frames(part))
            });
        }
        if let Some(mut part) = at {
            part.sequence = sequence;
            ring.push(TraceRecord::Frames(part));
        }
        if let Some(list) = lists.out.and_then(|list| list.received(&entry, read)) {
            list.record(sequence, ListKind::Out, RECORDS, read, |part| {
                ring.push(TraceRecord::Frames(part))
            });
        }
        result
    }
}

// SAFETY: `call` issues the call once through `inner` and returns its result; recording only reads
// the arguments. `inner` keeps the promises of the trait, and so does the wrapper.
unsafe impl<X: Xen, H: TraceHost> Xen for Traced<X, H> {
    #[inline(always)]
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        if self.has_details() {
            // SAFETY: the requirements are this function's own.
            return unsafe { self.call_with_details(call) };
        }
        let (record, reports_done) = (CallRecord::of(call), call.reports_done());
        let start = self.host.now();
        // SAFETY: the requirements of `call` are those of the same call here.
        let result = unsafe { self.inner.call(call) };
        self.record(&mut TraceEntry {
            sequence: 0,
            start,
            duration: self.host.now().saturating_sub(start),
            times: 1,
            phase: None,
            call: record,
            result,
            done: if reports_done { call.done() } else { None },
            failed: if reports_done { call.failed_entry() } else { None },
        });
        result
    }

    #[inline(always)]
    fn enter(&self, span: &Span) {
        self.inner.enter(span);
        if self.has_details() {
            self.enter_with_details(span);
        }
    }

    #[inline(always)]
    fn leave(&self, span: &Span) {
        if self.has_details() {
            self.leave_with_details();
        }
        self.inner.leave(span);
    }
}
