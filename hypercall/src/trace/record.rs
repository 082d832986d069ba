//! A hypercall and its decoded arguments, as a trace keeps them.

use core::fmt;

use arrayvec::ArrayVec;

use super::Hypercall;

/// The number of arguments that a record has room for; further ones are dropped.
const ARGS: usize = 8;

/// A decoded argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arg {
    /// A name and a count, an order or a width; printed in decimal.
    Number(&'static str, u64),
    /// A name and a frame, an address or an entry; printed in hexadecimal.
    Hex(&'static str, u64),
    /// A word that needs no name, such as the command.
    Word(&'static str),
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Number(name, value) => write!(f, "{name}={value}"),
            Self::Hex(name, value) => write!(f, "{name}={value:#x}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A hypercall with its decoded arguments.
///
/// `Display` prints the name of the hypercall and the arguments, separated by spaces.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The hypercall.
    pub hypercall: Hypercall,
    /// The number of operations that the call carries.
    pub sub_operations: u32,
    /// The number of those operations that flush a TLB or one page of it, on any vCPU.
    pub flushes: u32,
    args: ArrayVec<Arg, ARGS>,
}

impl CallRecord {
    /// A call of one operation that flushes nothing.
    #[inline]
    pub(crate) fn new(hypercall: Hypercall, args: impl IntoIterator<Item = Arg>) -> Self {
        // Not `new_const`: the compiler copies the empty array of a constant.
        let mut record = Self { hypercall, sub_operations: 1, flushes: 0, args: ArrayVec::new() };
        args.into_iter().for_each(|arg| record.push(arg));
        record
    }

    /// Adds an argument.
    #[inline]
    pub(crate) fn push(&mut self, arg: Arg) {
        let _dropped = self.args.try_push(arg);
    }

    /// Sets the number of operations.
    pub(crate) fn carrying(self, operations: usize) -> Self {
        Self { sub_operations: u32::try_from(operations).unwrap_or(u32::MAX), ..self }
    }

    /// Sets the number of operations that flush.
    pub(crate) fn flushing(self, flushes: usize) -> Self {
        Self { flushes: u32::try_from(flushes).unwrap_or(u32::MAX), ..self }
    }

    /// Returns the decoded arguments in the order in which they print.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }
}

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hypercall.name())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}
