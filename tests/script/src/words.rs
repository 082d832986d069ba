//! The words of a call.
//!
//! The code is small, because it is part of the kernel image.

use core::ops::RangeInclusive;

use arrayvec::ArrayVec;

use crate::FRAMES;

/// The remaining words of a call.
#[derive(Debug)]
pub(crate) struct Words<'c>(&'c str);

impl<'c> Words<'c> {
    pub const fn of(call: &'c str) -> Self {
        Self(call)
    }

    /// Returns the next word and keeps it.
    fn peek(&self) -> Option<&'c str> {
        let word = cut(self.0, b' ').map_or(self.0, |(word, _)| word);
        (!word.is_empty()).then_some(word)
    }

    /// Takes the next word if it is `expected`.
    pub fn expect(&mut self, expected: &str) -> Option<&'c str> {
        if self.peek() == Some(expected) { self.next() } else { None }
    }
}

impl<'c> Iterator for Words<'c> {
    type Item = &'c str;

    fn next(&mut self) -> Option<&'c str> {
        let word = self.peek()?;
        self.0 = self.0.get(word.len() + 1..).unwrap_or("");
        Some(word)
    }
}

/// Splits a text at the first `at`, which is an ASCII character.
pub(crate) fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = text.as_bytes().iter().position(|byte| *byte == at)?;
    Some((&text[..place], &text[place + 1..]))
}

/// Returns the indices of frames of the run: `r3` or `r0-r7`.
pub(crate) fn frames(word: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = cut(word, b'-').unwrap_or((word, word));
    let index = |word: &str| match cut(word, b'r') {
        Some(("", index)) => number(index).filter(|index| *index < FRAMES),
        _ => None,
    };
    Some(index(first)?..=index(last)?)
}

/// Returns a number: `7` or `2^60`.
pub(crate) fn number(word: &str) -> Option<u64> {
    if let Some(("2", exponent)) = cut(word, b'^') {
        return 1_u64.checked_shl(number(exponent)? as u32);
    }
    let digits = word.bytes().map(|byte| u64::from(byte).wrapping_sub(u64::from(b'0')));
    digits.fold((!word.is_empty()).then_some(0), |sum: Option<u64>, digit| {
        sum?.checked_mul(10)?.checked_add(digit).filter(|_| digit < 10)
    })
}

/// Extents, with the names of their first frames.
#[derive(Debug)]
pub(crate) struct Extents<'c> {
    pub count: u64,
    pub order: u32,
    pub names: ArrayVec<&'c str, { FRAMES as usize }>,
}

/// Reads extents such as `8x0 r0-r7`. `limit` is the order that `L` means.
///
/// The names end with the call, before a word with `=`, or before `for`.
pub(crate) fn extents<'c>(words: &mut Words<'c>, limit: u32) -> Option<Extents<'c>> {
    let (count, order) = cut(words.next()?, b'x')?;
    let order = match order {
        "L" => limit,
        "L+1" => limit + 1,
        order => number(order)? as u32,
    };
    let mut names = ArrayVec::new();
    while let Some(name) = words.peek().filter(|word| cut(word, b'=').is_none() && *word != "for") {
        words.next();
        names.try_push(name).ok()?;
    }
    Some(Extents { count: number(count)?, order, names })
}
