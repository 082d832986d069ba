//! The parts of the work that a trace groups hypercalls by.

use core::fmt;

/// A stretch of work with a beginning and an end, reported by [`Xen::enter`](crate::Xen::enter) and
/// [`Xen::leave`](crate::Xen::leave).
///
/// Spans nest: an operation contains phases, and an operation may contain another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Span {
    /// A test of the kernel, by its name.
    Test(&'static str),
    /// A call into the library.
    Operation(Operation),
    /// A step of an operation.
    Phase(Phase),
}

/// A call into the library, with the size and the limits that the caller asked for.
///
/// `Display` prints the name and the limits that restrict anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The public function, for example `alloc_coherent`.
    pub name: &'static str,
    /// The size in bytes.
    pub bytes: u64,
    /// The highest address, inclusive.
    pub mask: u64,
    /// The lowest address.
    pub lowest: u64,
    /// The alignment in bytes; 0 or 1 for none.
    pub align: u64,
    /// The boundary that no segment crosses, in bytes; 0 for none.
    pub boundary: u64,
    /// The maximum length of a segment in bytes.
    pub segment: u64,
    /// The maximum number of segments.
    pub segments: u64,
}

impl Operation {
    /// Returns an operation without limits.
    #[inline]
    pub const fn new(name: &'static str, bytes: u64) -> Self {
        Self {
            name,
            bytes,
            mask: u64::MAX,
            lowest: 0,
            align: 0,
            boundary: 0,
            segment: u64::MAX,
            segments: 1,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bytes, mask, lowest, align, boundary, segment, segments } = *self;
        f.write_str(name)?;
        match bytes {
            u64::MAX => f.write_str(" bytes=all")?,
            bytes => write!(f, " bytes={bytes}")?,
        }
        match (mask, mask.trailing_ones(), mask.leading_zeros()) {
            (u64::MAX, ..) => {}
            (_, ones, zeros) if ones + zeros == u64::BITS => write!(f, " bits={ones}")?,
            _ => write!(f, " mask={mask:#x}")?,
        }
        if lowest > 0 {
            write!(f, " lowest={}", Size(lowest))?;
        }
        if align > 1 {
            write!(f, " align={}", Size(align))?;
        }
        if boundary > 0 {
            write!(f, " boundary={}", Size(boundary))?;
        }
        if segment < u64::MAX {
            write!(f, " segment={}", Size(segment))?;
        }
        if segments > 1 { write!(f, " segments={segments}") } else { Ok(()) }
    }
}

/// A number of bytes, such as `2^16` or `0x12000`.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.is_power_of_two() {
            true => write!(f, "2^{}", self.0.trailing_zeros()),
            false => write!(f, "{:#x}", self.0),
        }
    }
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
    /// The number of phases.
    pub const COUNT: usize = Self::ALL.len();

    pub(crate) const ALL: [Self; 7] = [
        Self::Plan,
        Self::Purge,
        Self::Detach,
        Self::DetachExchange,
        Self::Exchange,
        Self::Attach,
        Self::Zero,
    ];

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
