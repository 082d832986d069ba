//! Faults on demand: a certain hypercall fails, or an exchange goes wrong inside.

use hypercall::XenErrno;

/// Makes one hypercall fail. Calls are counted from the moment it is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    call: u64,
    times: u64,
    after: u64,
    errno: Option<XenErrno>,
}

impl Fault {
    /// The `call`-th hypercall, counted from 1, does nothing and returns `errno`.
    pub const fn refuse(call: u64, errno: XenErrno) -> Self {
        Self { call, times: 1, after: 0, errno: Some(errno) }
    }

    /// The `call`-th hypercall does nothing and returns a count of 0, as the reservation operations
    /// do.
    pub const fn stop(call: u64) -> Self {
        Self { call, times: 1, after: 0, errno: None }
    }

    /// The same, but Xen does `entries` entries or extents first.
    #[must_use]
    pub const fn after(self, entries: u64) -> Self {
        Self { after: entries, ..self }
    }

    /// The same for `times` calls in a row.
    #[must_use]
    pub const fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

/// A fault inside one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeFault {
    /// Entry *n* of the in-list can't be read ([C24](xen_contig::conformance#C24)).
    InUnreadable(u64),
    /// The *n*-th frame can't be taken out of the IOMMU ([C35](xen_contig::conformance#C35)).
    IommuUnmap(u64, XenErrno),
    /// Entry *n* of the out-list can't be read when its extent has been assigned
    /// ([C50](xen_contig::conformance#C50)).
    OutUnreadable(u64),
    /// Entry *n* of the out-list can't be written ([C51](xen_contig::conformance#C51)).
    OutUnwritable(u64),
    /// The *n*-th new extent can't be mapped in the IOMMU ([C52](xen_contig::conformance#C52)).
    IommuMap(u64, XenErrno),
    /// The *n*-th frame of a new extent does not get its place in a translated guest: Xen returns
    /// `ENOMEM` and leaves a hole ([C79](xen_contig::conformance#C79)).
    Hole(u64),
    /// The domain is dying when the chunk is assigned ([C58](xen_contig::conformance#C58)).
    Dying,
    /// A false answer.
    Lie(Lie),
}

/// A false answer to an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    /// Whether the exchange is done.
    pub commit: bool,
    /// The result.
    pub answer: Result<u64, XenErrno>,
    /// The count of exchanged extents; `None` leaves it as it is.
    pub count: Option<u64>,
    /// What is written over the first entry of the out-list.
    pub out: Option<u64>,
}

/// The faults that are armed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Option<Fault>,
    calls: u64,
    pub hits: u64,
    pub exchange: Option<ExchangeFault>,
    /// Whether exchanges are preempted between chunks.
    pub preempt: bool,
    /// The error of every `mmuext_op`.
    pub flush: Option<XenErrno>,
    /// A flush was refused earlier in the same multicall, so the exchange goes on without it.
    pub flush_refused: bool,
}

/// How far a call gets that a fault hits, and its error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub after: u64,
    pub errno: Option<XenErrno>,
}

impl Faults {
    pub fn arm(&mut self, fault: Option<Fault>) {
        self.armed = fault;
        self.calls = 0;
        self.hits = 0;
    }

    /// Counts a call. Returns how the call is cut short if the fault hits it.
    pub fn next_call(&mut self) -> Option<Cut> {
        self.calls += 1;
        let fault = self
            .armed
            .filter(|fault| (fault.call..fault.call + fault.times).contains(&self.calls))?;
        self.hits += 1;
        Some(Cut { after: fault.after, errno: fault.errno })
    }
}
