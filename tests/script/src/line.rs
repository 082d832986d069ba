//! The answer to a call, as text.

use core::fmt::{self, Write};
use core::ops::Deref;

use arrayvec::ArrayString;
use hypercall::XenErrno;

/// The answer to a call.
///
/// Text past 128 bytes is cut off. No answer in a script is that long, so a cut answer differs.
#[derive(Clone, Debug, Default)]
pub struct AnswerLine(ArrayString<128>);

impl AnswerLine {
    /// Makes a line that starts with the result of the hypercall.
    pub(crate) fn answer(answer: Result<u64, XenErrno>) -> Self {
        let mut line = Self::default();
        match answer {
            Ok(value) => line.add(format_args!("= {value}")),
            Err(errno) => match errno.name() {
                Some(name) => line.add(format_args!("= {name}")),
                None => line.add(format_args!("= errno {}", errno.raw())),
            },
        }
        line
    }

    /// Makes the line of a call that the script could not make.
    pub(crate) fn malformed(why: &str) -> Self {
        let mut line = Self::default();
        line.add(format_args!("not made: {why}"));
        line
    }

    pub(crate) fn add(&mut self, text: fmt::Arguments<'_>) {
        // A line that is cut off differs from each answer in the script.
        let _cut_off = self.0.write_fmt(text);
    }

    /// Adds the members of a bit set as ranges, such as ` moved r0-r7,r9`.
    ///
    /// Adds nothing for an empty set.
    pub(crate) fn set(&mut self, what: &str, prefix: &str, set: u32) {
        let has = |bit: u32| bit < 32 && set >> bit & 1 != 0;
        let mut before = what;
        for first in (0..32).filter(|bit| has(*bit) && (*bit == 0 || !has(bit - 1))) {
            let last = (first..32).take_while(|bit| has(*bit)).last().unwrap_or(first);
            self.add(format_args!("{before}{prefix}{first}"));
            if last > first {
                self.add(format_args!("-{prefix}{last}"));
            }
            before = ",";
        }
    }
}

impl Deref for AnswerLine {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AnswerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
