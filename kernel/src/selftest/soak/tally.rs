//! The counts of the operations. Each operation is counted once.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::say;

/// The counts of the operations.
#[derive(Clone, Debug, Default)]
pub struct SoakTally {
    done: NamedCounts,
    refused: NamedCounts,
}

impl SoakTally {
    /// Counts an operation that succeeded.
    pub fn done(&mut self, what: &'static str) {
        self.done.add(what);
    }

    /// Counts an operation that was refused, by the kind of the error.
    pub fn refused(&mut self, error: &impl Debug) {
        self.refused.add(&kind(error));
    }

    /// Returns the number of counted operations.
    pub fn total(&self) -> u64 {
        self.done.total() + self.refused.total()
    }

    /// Returns the number of operations that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.done.total()
    }

    /// Prints all counts.
    pub fn report(&self, seed: u64) {
        let (total, succeeded) = (self.total(), self.succeeded());
        say!(
            "# soak: seed {seed}: {total} random operations, {succeeded} done, {} refused as expected",
            total - succeeded
        );
        self.done.list("done, with their number");
        self.refused.list("refused as expected");
    }
}

/// Counts with names, at most a dozen, in order of their first use. A map would add 5 KB to the
/// image.
#[derive(Clone, Debug, Default)]
struct NamedCounts(Vec<(String, u64)>);

impl NamedCounts {
    fn add(&mut self, name: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => self.0.push((name.to_string(), 1)),
        }
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Prints the counts, several in a line. A console may break longer lines.
    fn list(&self, word: &str) {
        const LINE: usize = 100;
        let mut text = String::new();
        for (name, count) in &self.0 {
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
}

/// Returns the names of an error's variants without their fields, such as `Exchange/NoMemory`.
pub fn kind(error: &impl Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find([' ', '{', ')']).unwrap_or(text.len());
    text[..end].replace('(', "/").to_string()
}
