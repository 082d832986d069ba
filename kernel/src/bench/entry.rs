//! The entries of `bench=`. The host tests compile this file too.

use core::fmt;

use xen_contig::addr::{AddressBits, Order, OutOfRange};

/// The operations of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchPattern {
    /// Allocates and frees a buffer repeatedly. The first time is cold.
    Cycle,
    /// Allocates buffers, then frees all of them.
    Hold,
    /// Allocates and frees buffers of 1 to 2^order pages in a pseudo-random sequence.
    Churn,
    /// Allocates and frees a buffer repeatedly. Nothing is retained, so each allocation exchanges.
    Strict,
    /// Exchanges an unmapped run for an extent, and back, repeatedly.
    Bare,
}

/// The patterns by name. For `-far` the kernel first sets aside every free frame in reach.
const PATTERNS: [(&str, BenchPattern, bool); 8] = [
    ("cycle", BenchPattern::Cycle, false),
    ("cycle-far", BenchPattern::Cycle, true),
    ("hold", BenchPattern::Hold, false),
    ("hold-far", BenchPattern::Hold, true),
    ("churn", BenchPattern::Churn, false),
    ("churn-far", BenchPattern::Churn, true),
    ("strict", BenchPattern::Strict, false),
    ("bare", BenchPattern::Bare, false),
];

/// One entry of `bench=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchEntry {
    /// The operations.
    pub pattern: BenchPattern,
    /// True if every free frame within the mask's reach is set aside first.
    pub far: bool,
    /// The order of a buffer. In `churn` it is the highest order.
    pub order: Order,
    /// The address width of the device.
    pub bits: AddressBits,
    /// The number of buffers, or of operations in `churn`.
    pub count: u32,
}

/// The reason why an entry is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// The entry does not have the expected form.
    Form,
    /// A number is out of its range.
    OutOfRange(OutOfRange),
}

impl BadEntry {
    /// The expected form.
    pub const FORM: &'static str = "<pattern>:<order>:<address bits>:<count>, where the pattern is \
                                    cycle, hold or churn, each also with -far, or strict or bare, and \
                                    the count is from 1 to 2^32 - 1";
}

impl BenchEntry {
    /// Parses an entry.
    ///
    /// # Errors
    /// The entry is malformed.
    pub fn parse(text: &str) -> Result<Self, BadEntry> {
        let mut fields = text.split(':');
        let mut field = || fields.next().ok_or(BadEntry::Form);
        let (name, order, bits, count) = (field()?, field()?, field()?, field()?);
        if fields.next().is_some() {
            return Err(BadEntry::Form);
        }
        let known = PATTERNS.iter().find(|(known, ..)| *known == name);
        let (_, pattern, far) = *known.ok_or(BadEntry::Form)?;
        let order = Order::new(number(order)?).map_err(BadEntry::OutOfRange)?;
        let bits = AddressBits::new(number(bits)?).map_err(BadEntry::OutOfRange)?;
        let count = number(count)?;
        if count == 0 {
            return Err(BadEntry::Form);
        }
        Ok(Self { pattern, far, order, bits, count })
    }

    /// Returns the name of the pattern.
    pub fn pattern_name(&self) -> &'static str {
        let is_own = |known: &&(_, _, _)| (known.1, known.2) == (self.pattern, self.far);
        PATTERNS.iter().find(is_own).map_or("", |(name, ..)| name)
    }
}

fn number(text: &str) -> Result<u32, BadEntry> {
    // `parse` would accept a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or(BadEntry::Form)
}

impl fmt::Display for BenchEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, bits, count, .. } = self;
        write!(f, "{}:{order}:{bits}:{count}", self.pattern_name())
    }
}
