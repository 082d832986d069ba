//! A hypercall in a trace, and the parts of its line.

use std::fmt;

/// What ends the arguments of a multicall if the line does not have all of its entries.
const MORE: &str = "…";

/// A hypercall, or several equal ones in a row that the kernel folded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedCall {
    /// The vCPU that made the call.
    pub vcpu: u32,
    /// The number of the call, counted from 0 per vCPU; of folded calls, that of the first.
    pub number: u64,
    /// When the call was made, in ns since Xen booted; of folded calls, the first.
    pub start: u64,
    /// How long the call took, in ns; of folded calls, the sum.
    pub duration: u64,
    /// The step of an operation that made the call, or `None` outside of every step.
    pub phase: Option<Phase>,
    /// The name of the hypercall in Xen's `public/xen.h`, without `__HYPERVISOR_`.
    pub hypercall: String,
    /// The decoded arguments in the order of the line.
    pub arguments: Vec<Argument>,
    /// What Xen answered.
    pub result: CallResult,
    /// How much of the call Xen did: in-extents of an exchange, entries of a list.
    pub done: Option<u64>,
    /// The first entry of a multicall that Xen refused. The multicall itself answers 0.
    pub failed: Option<FailedEntry>,
    /// How many equal calls in a row this one stands for; 1 if it was not folded.
    pub times: u64,
    /// The machine frames that were given to Xen.
    pub frames_in: FrameRuns,
    /// The pseudo-physical frames at which the new frames appear.
    pub frames_at: FrameRuns,
    /// The machine frames that Xen gave.
    pub frames_out: FrameRuns,
    /// The innermost span around the call, an index into [`Boot::spans`](crate::Boot::spans).
    pub parent: Option<usize>,
    /// The line of the log, counted from 1.
    pub line: usize,
}

impl TracedCall {
    /// Returns the sub-operation: the first argument without a name, for example `exchange`.
    ///
    /// Of a multicall it is the first operation that the line names by a word.
    pub fn operation(&self) -> Option<&str> {
        self.words().next()
    }

    /// Iterates over the arguments that have no name.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let words = self.arguments.iter().filter(|a| a.name.is_none()).map(|a| a.value.as_str());
        words.filter(|word| *word != MORE)
    }

    /// Returns the value of the argument with this name.
    pub fn argument(&self, name: &str) -> Option<&str> {
        let argument = self.arguments.iter().find(|a| a.name.as_deref() == Some(name));
        argument.map(|a| a.value.as_str())
    }

    /// Returns the time at which the call returned, in ns since Xen booted.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.duration)
    }

    /// Returns the name of the error of the call, or of the first entry of a multicall that failed.
    pub fn errno(&self) -> Option<&str> {
        let of_entry = self.failed.as_ref().map(|failed| failed.errno.as_str());
        self.result.errno().or(of_entry)
    }

    /// Returns true if Xen refused the call, or an entry of a multicall.
    pub fn is_error(&self) -> bool {
        self.errno().is_some()
    }
}

/// Prints the hypercall, its arguments, the result and what was done, as the trace does.
impl fmt::Display for TracedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hypercall)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))?;
        write!(f, " -> {}", self.result)?;
        if let Some(done) = self.done {
            write!(f, " done={done}")?;
        }
        if let Some(FailedEntry { entry, errno }) = &self.failed {
            write!(f, " failed={entry}:-{errno}")?;
        }
        if self.times != 1 {
            write!(f, " times={}", self.times)?;
        }
        Ok(())
    }
}

/// An argument of a hypercall, or a limit of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Argument {
    /// The name, or `None` if the line has a word alone, such as `exchange`.
    pub name: Option<String>,
    /// The value as printed: decimal, `0x` and hexadecimal, or words joined by `|`.
    pub value: String,
}

impl Argument {
    pub(crate) fn parse(word: &str) -> Self {
        match word.split_once('=') {
            Some((name, value)) => Self { name: Some(name.to_owned()), value: value.to_owned() },
            None => Self { name: None, value: word.to_owned() },
        }
    }

    /// Returns the value if it is one number, decimal or hexadecimal.
    pub fn number(&self) -> Option<u64> {
        number(&self.value)
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name}={}", self.value),
            None => f.write_str(&self.value),
        }
    }
}

/// Parses a number in base 10, or in base 16 after `0x`.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => {
            let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u64::from_str_radix(digits, 16).ok())?
        }
        None => decimal(text),
    }
}

/// Parses digits alone: no sign, no space.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An entry of a multicall that Xen refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedEntry {
    /// The number of the entry, counted from 0.
    pub entry: u32,
    /// The error, by its name without the sign.
    pub errno: String,
}

impl FailedEntry {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (entry, result) = text.split_once(':')?;
        let CallResult::Errno(errno) = CallResult::parse(result)? else { return None };
        Some(Self { entry: u32::try_from(decimal(entry)?).ok()?, errno })
    }
}

/// What Xen answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// A number that is not an error. 0 of most calls.
    Value(i64),
    /// An error, by its name without the sign, for example `EINVAL`. Digits if Xen has no name for it.
    Errno(String),
    /// A version of Xen.
    Version {
        /// The part before the dot.
        major: u32,
        /// The part after the dot.
        minor: u32,
    },
}

impl CallResult {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        if let Some(name) = word.strip_prefix('-') {
            let named = name.len() > 1 && name.starts_with('E');
            let known = named && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            return (known || decimal(name).is_some()).then(|| Self::Errno(name.to_owned()));
        }
        if let Some((major, minor)) = word.split_once('.') {
            let part = |text| u32::try_from(decimal(text)?).ok();
            return Some(Self::Version { major: part(major)?, minor: part(minor)? });
        }
        i64::try_from(number(word)?).ok().map(Self::Value)
    }

    /// Returns the name of the error, without the sign.
    pub fn errno(&self) -> Option<&str> {
        match self {
            Self::Errno(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for CallResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Errno(name) => write!(f, "-{name}"),
            Self::Version { major, minor } => write!(f, "{major}.{minor}"),
        }
    }
}

/// A step of an operation that obtains or returns machine memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Decides which extents to ask Xen for.
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
    /// All phases, in the order of a transaction.
    pub const ALL: [Self; 7] = [
        Self::Plan,
        Self::Purge,
        Self::Detach,
        Self::DetachExchange,
        Self::Exchange,
        Self::Attach,
        Self::Zero,
    ];

    /// Returns the name in a trace.
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

    /// Returns the phase with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Frames with consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRun {
    /// The number of the first frame.
    pub first: u64,
    /// The number of frames, at least 1.
    pub count: u64,
}

impl FrameRun {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let (first, count) = match word.split_once('+') {
            Some((first, count)) => (first, decimal(count)?),
            None => (word, 1),
        };
        first.starts_with("0x").then_some(())?;
        (count > 0).then_some(Self { first: number(first)?, count })
    }
}

impl fmt::Display for FrameRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{:#x}", self.first),
            count => write!(f, "{:#x}+{count}", self.first),
        }
    }
}

/// A list of frames as runs, in the order of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameRuns {
    /// The runs that the trace has.
    pub runs: Vec<FrameRun>,
    /// The number of frames of the list that the trace left out.
    pub cut: u64,
}

impl FrameRuns {
    /// Returns true if the trace has no list of this kind for the call.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.cut == 0
    }

    /// Returns the number of frames, those that the trace left out included.
    pub fn frames(&self) -> u64 {
        self.runs.iter().fold(self.cut, |sum, run| sum.saturating_add(run.count))
    }
}

impl fmt::Display for FrameRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.runs.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{run}")?;
        }
        if self.cut > 0 {
            let space = if self.runs.is_empty() { "" } else { " " };
            write!(f, "{space}cut={}", self.cut)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hypercall::trace::{Phase as Printed, TracedRun};

    use super::*;

    /// The library has types of its own, so that it builds where the crate `hypercall` does not.
    #[test]
    fn phases_and_runs_are_read_as_a_kernel_prints_them() {
        let printed = [
            Printed::Plan,
            Printed::Purge,
            Printed::Detach,
            Printed::DetachExchange,
            Printed::Exchange,
            Printed::Attach,
            Printed::Zero,
        ];
        assert_eq!(printed.len(), Printed::COUNT);
        let read = printed.map(|phase| Phase::from_name(phase.name()));
        assert_eq!(read, Phase::ALL.map(Some));
        for frames in [1, 8] {
            let printed = TracedRun { first: 0x7d000, frames }.to_string();
            assert_eq!(FrameRun::parse(&printed), Some(FrameRun { first: 0x7d000, count: frames }));
        }
    }
}
