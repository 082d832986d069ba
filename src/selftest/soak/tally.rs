//! What became of the operations: each is counted once.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Debug;

use crate::kernel::say;

/// Counts under names.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    done: BTreeMap<&'static str, u64>,
    refused: BTreeMap<String, u64>,
}

impl Tally {
    /// An operation that was done.
    pub fn done(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// One that was refused: counted under the kind of the error.
    pub fn refused(&mut self, error: &impl Debug) {
        *self.refused.entry(kind(error)).or_default() += 1;
    }

    /// How many operations were counted.
    pub fn total(&self) -> u64 {
        self.done.values().chain(self.refused.values()).sum()
    }

    /// How many were done.
    pub fn succeeded(&self) -> u64 {
        self.done.values().sum()
    }

    /// Prints all counts.
    pub fn report(&self, seed: u64) {
        let (total, succeeded) = (self.total(), self.succeeded());
        say!(
            "# soak: seed {seed}: {total} operations, {succeeded} done, {} refused",
            total - succeeded
        );
        list("done", self.done.iter().map(|(name, count)| (*name, *count)));
        list("refused", self.refused.iter().map(|(name, count)| (name.as_str(), *count)));
    }
}

/// Prints counts, some to a line: a console may break long ones.
fn list<'n>(word: &str, counts: impl Iterator<Item = (&'n str, u64)>) {
    const LINE: usize = 100;
    let mut text = String::new();
    for (name, count) in counts {
        if text.len() > LINE {
            say!("# soak: {word}:{text}");
            text.clear();
        }
        text += &format!(" {name} {count}");
    }
    if !text.is_empty() {
        say!("# soak: {word}:{text}");
    }
}

/// The names of an error's variants, without the evidence: `Exchange(NoMemory`.
pub fn kind(error: &impl Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find([' ', '{', ')']).unwrap_or(text.len());
    text[..end].replace('(', "/").to_string()
}
