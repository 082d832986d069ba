//! A hypervisor that records every call and changes none.

use crate::sync::Mutex;
use crate::trace::{Level, Span, Summary, TraceEntry, TraceRing};
use crate::{Call, Xen, XenErrno};

/// The clock of a trace. Any function that returns a `u64` can be one.
///
/// A type without a value, instead of a function, keeps a static [`Traced`] all zeros, so that it
/// takes no room in an image.
pub trait Clock {
    /// Returns the time in any unit.
    fn now(&self) -> u64;
}

impl<F: Fn() -> u64> Clock for F {
    fn now(&self) -> u64 {
        self()
    }
}

/// A wrapper that issues every hypercall unchanged and records it when it returns.
///
/// It keeps the last [`RING_ENTRIES`](crate::trace::RING_ENTRIES) calls and the totals at every
/// level. At [`Level::Full`] it also passes each entry to the function given to
/// [`show`](Self::show). That function must make its own hypercalls without this wrapper.
///
/// A call takes a spin lock for the time of recording it, and does not mask events. A handler of
/// events or exceptions must therefore not call it: it could wait for the code that it interrupts.
#[derive(Debug)]
pub struct Traced<X, C = fn() -> u64> {
    inner: X,
    clock: C,
    state: Mutex<TraceState>,
}

#[derive(Debug)]
struct TraceState {
    sequence: u64,
    level: Level,
    sink: Option<fn(&TraceEntry)>,
    ring: TraceRing,
    summary: Summary,
}

impl<X: Xen, C: Clock> Traced<X, C> {
    /// Makes a tracer of the calls to `inner`, at [`Level::Off`].
    pub const fn new(inner: X, clock: C) -> Self {
        Self {
            inner,
            clock,
            state: Mutex::new(TraceState {
                sequence: 0,
                level: Level::Off,
                sink: None,
                ring: TraceRing::new(),
                summary: Summary::new(),
            }),
        }
    }

    /// Sets the level, and the function that receives the entries at [`Level::Full`].
    pub fn show(&self, level: Level, sink: fn(&TraceEntry)) {
        let mut state = self.state.lock();
        state.level = level;
        state.sink = Some(sink);
    }

    /// Returns the level.
    pub fn level(&self) -> Level {
        self.state.lock().level
    }

    /// Returns the totals so far.
    pub fn summary(&self) -> Summary {
        self.state.lock().summary
    }

    /// Calls `visit` with each of the last entries, oldest first.
    ///
    /// Returns false, without a visit, if another vCPU or the interrupted code is recording a call.
    /// It never waits, so a panic may call it.
    pub fn recent(&self, visit: impl FnMut(&TraceEntry)) -> bool {
        let Some(state) = self.state.try_lock() else { return false };
        state.ring.iter().for_each(visit);
        true
    }

    #[inline(never)]
    fn record(&self, mut entry: TraceEntry) {
        let shown = {
            let mut state = self.state.lock();
            entry.sequence = state.sequence;
            state.sequence += 1;
            state.summary.count(&entry.call, entry.result);
            let sink = state.sink.filter(|_| state.level == Level::Full);
            let shown = sink.map(|sink| (sink, entry.clone()));
            state.ring.push(entry);
            shown
        };
        // Without the lock: printing takes long.
        if let Some((sink, entry)) = shown {
            sink(&entry);
        }
    }
}

// SAFETY: `call` issues the call once through `inner` and returns its result; recording only reads
// the arguments. `inner` keeps the promises of the trait, and so does the wrapper.
unsafe impl<X: Xen, C: Clock> Xen for Traced<X, C> {
    #[inline(always)]
    unsafe fn call(&self, call: &mut Call<'_>) -> Result<u64, XenErrno> {
        let time = self.clock.now();
        let mut entry =
            TraceEntry { sequence: 0, time, call: call.describe(), result: Ok(0), done: None };
        let reports_done = call.reports_done();
        // SAFETY: the requirements of `call` are those of the same call here.
        let result = unsafe { self.inner.call(call) };
        entry.result = result;
        entry.done = if reports_done { call.done() } else { None };
        self.record(entry);
        result
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
