//! What comes of a call, as text.

use core::fmt::{self, Write};
use core::ops::Deref;

use arrayvec::ArrayString;
use hypercall::XenErrno;

/// A line of a transcript. What does not fit is cut off, which no expected line is.
#[derive(Clone, Debug, Default)]
pub struct Line(ArrayString<128>);

impl Line {
    /// Starts with Xen's answer.
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

    /// A call that could not be made.
    pub(crate) fn malformed(why: &str) -> Self {
        let mut line = Self::default();
        line.add(format_args!("not made: {why}"));
        line
    }

    pub(crate) fn add(&mut self, text: fmt::Arguments<'_>) {
        // A line that is too long differs from any expected one, so it shows.
        let _cut_off = self.0.write_fmt(text);
    }

    /// Adds the members of a set in ranges: ` moved r0-r7,r9`; nothing for an empty set.
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

impl Deref for Line {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
