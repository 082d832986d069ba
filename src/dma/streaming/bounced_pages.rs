//! Which pages of a mapping are bounced.

const WORDS: usize = 8;
const BITS: u64 = 64 * WORDS as u64;

/// A bit for each page of a mapping, set if the page is bounced.
///
/// It takes the same room for every mapping. In a mapping of more than 512 pages, one bit stands for a
/// group of 2^*n* pages, which are bounced together.
#[derive(Clone, Copy, Debug)]
pub struct BouncedPages {
    words: [u64; WORDS],
    /// The pages of a group, as a power of two.
    group: u32,
}

impl BouncedPages {
    /// The bits of a mapping of which no page is bounced.
    pub const NONE: Self = Self { words: [0; WORDS], group: 0 };

    /// Returns the bits for `pages` pages, none of which is bounced.
    pub fn none_of(pages: u64) -> Self {
        let group = pages.div_ceil(BITS).max(1).next_power_of_two().ilog2();
        Self { group, ..Self::NONE }
    }

    /// Returns true if a bit stands for several pages.
    pub const fn has_groups(&self) -> bool {
        self.group > 0
    }

    /// Returns the word and the bit of a page's group.
    const fn place(&self, page: u64) -> (usize, u64) {
        let group = page >> self.group;
        ((group / 64) as usize % WORDS, 1 << (group % 64))
    }

    /// Marks the group of a page as bounced.
    pub const fn insert(&mut self, page: u64) {
        let (word, bit) = self.place(page);
        self.words[word] |= bit;
    }

    /// Returns true if a page is bounced.
    pub const fn contains(&self, page: u64) -> bool {
        let (word, bit) = self.place(page);
        self.words[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_stands_for_as_many_pages_as_it_must() {
        for (pages, group) in [(1, 1), (512, 1), (513, 2), (1024, 2), (1025, 4), (10_000, 32)] {
            let mut bounced = BouncedPages::none_of(pages);
            let last = pages - 1;
            bounced.insert(last);
            let first = last / group * group;
            for page in [0, first.saturating_sub(1), first, last] {
                assert_eq!(bounced.contains(page), page >= first, "{page} of {pages}");
            }
            assert_eq!(bounced.words.iter().map(|it| it.count_ones()).sum::<u32>(), 1);
        }
    }
}
