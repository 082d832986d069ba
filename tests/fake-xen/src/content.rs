//! The bytes of a frame.
//!
//! Most tests never follow a pointer. For them a frame is stored lazily, because most frames repeat
//! one word. A machine with real memory stores every byte in a [`Ram`](crate::ram::Ram).

use std::array;

use hypercall::PAGE_SIZE;

use crate::ram::RamFrame;

/// Words of 8 bytes in a frame.
pub const WORDS: usize = PAGE_SIZE / 8;

/// The word that fills a freed frame. It is not zero, so that a test finds code that relies on new
/// memory being zeroed ([C56](xen_contig::conformance#C56)).
pub const POISON: u64 = 0xc2c2_c2c2_c2c2_c2c2;

/// The bytes of a frame.
#[derive(Debug)]
pub(crate) enum Content {
    /// The same word everywhere.
    Fill(u64),
    /// Word by word.
    Words(Box<[u64; WORDS]>),
    /// Memory of the host, to which the guest has pointers.
    Ram(RamFrame),
}

impl Content {
    /// Reads a word of 8 bytes.
    pub fn read(&self, index: usize) -> u64 {
        match self {
            Self::Fill(word) => *word,
            Self::Words(words) => words[index],
            Self::Ram(frame) => frame.load(index * 8, 8),
        }
    }

    /// Writes a word of 8 bytes.
    pub fn write(&mut self, index: usize, value: u64) {
        match self {
            Self::Words(words) => words[index] = value,
            Self::Ram(frame) => frame.store(index * 8, 8, value),
            Self::Fill(word) if *word == value => {}
            Self::Fill(word) => {
                let mut words = Box::new([*word; WORDS]);
                words[index] = value;
                *self = Self::Words(words);
            }
        }
    }

    /// Reads 1, 2, 4 or 8 bytes at a multiple of their number.
    pub fn load(&self, offset: usize, bytes: usize) -> u64 {
        if let Self::Ram(frame) = self {
            return frame.load(offset, bytes);
        }
        let (shift, mask) = bits(offset, bytes);
        self.read(offset / 8) >> shift & mask
    }

    /// Writes 1, 2, 4 or 8 bytes at a multiple of their number.
    pub fn store(&mut self, offset: usize, bytes: usize, value: u64) {
        if let Self::Ram(frame) = self {
            return frame.store(offset, bytes, value);
        }
        let (shift, mask) = bits(offset, bytes);
        let others = self.read(offset / 8) & !(mask << shift);
        self.write(offset / 8, others | (value & mask) << shift);
    }

    /// Fills the frame with a word.
    pub fn fill(&mut self, word: u64) {
        match self {
            Self::Ram(frame) => (0..WORDS).for_each(|index| frame.store(index * 8, 8, word)),
            _ => *self = Self::Fill(word),
        }
    }

    /// The same bytes, apart from these.
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Fill(word) => Self::Fill(*word),
            Self::Words(words) => Self::Words(words.clone()),
            Self::Ram(_) => Self::Words(Box::new(array::from_fn(|index| self.read(index)))),
        }
    }

    /// Replaces the bytes.
    pub fn replace(&mut self, bytes: Self) {
        match self {
            Self::Ram(frame) => {
                (0..WORDS).for_each(|index| frame.store(index * 8, 8, bytes.read(index)));
            }
            _ => *self = bytes,
        }
    }

    /// The word that the whole frame repeats, if it does.
    pub fn uniform(&self) -> Option<u64> {
        let first = self.read(0);
        match self {
            Self::Fill(_) => Some(first),
            _ => (1..WORDS).all(|index| self.read(index) == first).then_some(first),
        }
    }

    /// A number that changes when the content does.
    pub fn fingerprint(&self) -> u64 {
        let mix =
            |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        match self.uniform() {
            Some(word) => mix(1, word),
            None => (0..WORDS).fold(2, |sum, index| mix(sum, self.read(index))),
        }
    }
}

/// Where a value of `bytes` bytes lies in its word: from which bit on, and its mask.
fn bits(offset: usize, bytes: usize) -> (usize, u64) {
    assert!(offset.is_multiple_of(bytes), "{offset} is not a multiple of {bytes}");
    (offset % 8 * 8, u64::MAX >> (64 - 8 * bytes))
}
