//! What a frame holds, stored lazily: most frames are one word over and over.

use hypercall::PAGE_SIZE;

/// Words of 8 bytes in a frame.
pub const WORDS: usize = PAGE_SIZE / 8;

/// What a frame holds after it was freed: nobody's data, but not zero either, so that whoever
/// relies on new memory being zeroed is found out (C56).
pub const POISON: u64 = 0xc2c2_c2c2_c2c2_c2c2;

/// The bytes of a frame.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The same word everywhere.
    Fill(u64),
    /// Word by word.
    Words(Box<[u64; WORDS]>),
}

impl Content {
    pub fn read(&self, index: usize) -> u64 {
        match self {
            Self::Fill(word) => *word,
            Self::Words(words) => words[index],
        }
    }

    pub fn write(&mut self, index: usize, value: u64) {
        match self {
            Self::Words(words) => words[index] = value,
            Self::Fill(word) if *word == value => {}
            Self::Fill(word) => {
                let mut words = Box::new([*word; WORDS]);
                words[index] = value;
                *self = Self::Words(words);
            }
        }
    }

    /// The one word that the whole frame repeats, if it does.
    pub fn uniform(&self) -> Option<u64> {
        match self {
            Self::Fill(word) => Some(*word),
            Self::Words(words) => words.iter().all(|word| *word == words[0]).then_some(words[0]),
        }
    }

    /// A number that changes when the content does, for "as it was before".
    pub fn fingerprint(&self) -> u64 {
        let mix =
            |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        match self.uniform() {
            Some(word) => mix(1, word),
            None => (0..WORDS).fold(2, |sum, index| mix(sum, self.read(index))),
        }
    }
}
