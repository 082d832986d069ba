//! The parts of the work that a trace can group hypercalls by.

/// A stretch of work with a beginning and an end, reported by [`Xen::enter`](crate::Xen::enter) and
/// [`Xen::leave`](crate::Xen::leave).
///
/// Spans nest: an operation contains phases, and an operation may contain another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Span {
    /// A call into the library, by the name of its public function, for example `alloc_coherent`.
    Operation(&'static str),
    /// A step of an operation.
    Phase(Phase),
}

/// A step of an operation that obtains or returns machine memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Decides which extents to ask Xen for. Makes no hypercall.
    Plan,
    /// Removes the aliases of the run.
    Purge,
    /// Removes the run from the linear mapping and flushes the TLBs.
    Detach,
    /// Both of the steps around it in one multicall.
    DetachExchange,
    /// Hands the frames of the run to Xen and receives others.
    Exchange,
    /// Maps the new frames where the run was.
    Attach,
    /// Fills the run with zeros.
    Zero,
}

impl Phase {
    /// Returns the name of the step in a trace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Purge => "purge",
            Self::Detach => "detach",
            Self::DetachExchange => "detach+exchange",
            Self::Exchange => "exchange",
            Self::Attach => "attach",
            Self::Zero => "zero",
        }
    }
}
