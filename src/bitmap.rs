//! Which of a row of numbered things are free, a bit for each: frames of the guest, pages of a
//! stretch of addresses. Simple enough to be believed, and its accounts can be checked to the bit.

/// What a search is told of the run that begins with a number.
pub(crate) enum Try {
    /// It is what is looked for.
    Fits,
    /// It is not, and neither is any that begins before this one.
    From(u64),
}

/// A set bit is free. The memory is the embedder's.
#[derive(Debug)]
pub(crate) struct Bitmap<'a> {
    words: &'a mut [u64],
    limit: u64,
    free: u64,
    /// Where the last search ended; the next one starts there.
    hint: u64,
}

impl<'a> Bitmap<'a> {
    /// Words that `count` numbers need.
    pub const fn words(count: u64) -> usize {
        count.div_ceil(64) as usize
    }

    /// Nothing free, for numbers below `limit`.
    ///
    /// # Panics
    /// If there are fewer words than [`words`](Self::words) says.
    pub fn new(words: &'a mut [u64], limit: u64) -> Self {
        assert!(words.len() >= Self::words(limit), "a bitmap too small for {limit}");
        words.fill(0);
        Self { words, limit, free: 0, hint: 0 }
    }

    /// How many are free.
    pub const fn free(&self) -> u64 {
        self.free
    }

    /// Takes a run of `count` whose first is a multiple of `align`, a power of two.
    pub fn take(&mut self, count: u64, align: u64) -> Option<u64> {
        if count == 0 || count > self.free || !align.is_power_of_two() {
            return None;
        }
        let first =
            self.search(self.hint, count, align).or_else(|| self.search(0, count, align))?;
        self.flip(first, count);
        self.free -= count;
        self.hint = first + count;
        Some(first)
    }

    /// Takes a run of `count` that `fits` accepts, asking it `budget` times at most.
    pub fn take_where(
        &mut self,
        count: u64,
        budget: u32,
        mut fits: impl FnMut(u64) -> Try,
    ) -> Option<u64> {
        let mut from = 0;
        for _ in 0..budget {
            if count == 0 || count > self.free {
                return None;
            }
            let first = self.search(from, count, 1)?;
            match fits(first) {
                Try::Fits => {
                    self.flip(first, count);
                    self.free -= count;
                    return Some(first);
                }
                Try::From(next) => from = next.max(first + 1),
            }
        }
        None
    }

    /// Takes a run back.
    ///
    /// # Errors
    /// The first that is free already or beyond the limit; nothing was taken back.
    pub fn give(&mut self, first: u64, count: u64) -> Result<(), u64> {
        let end = first.checked_add(count).filter(|end| *end <= self.limit);
        let wrong = match end {
            None => Some(self.limit.max(first)),
            Some(end) => (first..end).find(|number| self.is_free(*number)),
        };
        if let Some(number) = wrong {
            return Err(number);
        }
        self.flip(first, count);
        self.free += count;
        self.hint = self.hint.min(first);
        Ok(())
    }

    fn is_free(&self, number: u64) -> bool {
        self.words[(number / 64) as usize] >> (number % 64) & 1 == 1
    }

    /// First-fit from `from` on.
    fn search(&self, from: u64, count: u64, align: u64) -> Option<u64> {
        let mut first = from.next_multiple_of(align);
        while first.checked_add(count)? <= self.limit {
            match self.last_taken(first, count) {
                None => return Some(first),
                Some(taken) => first = (taken + 1).next_multiple_of(align),
            }
        }
        None
    }

    /// The last of the run that is not free: all starts up to it can be skipped.
    fn last_taken(&self, first: u64, count: u64) -> Option<u64> {
        let (mut end, start) = (first + count, first);
        while end > start {
            let word_start = ((end - 1) / 64 * 64).max(start);
            let bits = end - word_start;
            let mask = (u64::MAX >> (64 - bits)) << (word_start % 64);
            let taken = !self.words[(word_start / 64) as usize] & mask;
            if taken != 0 {
                return Some(word_start / 64 * 64 + u64::from(taken.ilog2()));
            }
            end = word_start;
        }
        None
    }

    fn flip(&mut self, first: u64, count: u64) {
        let (mut start, end) = (first, first + count);
        while start < end {
            let stop = (start / 64 * 64 + 64).min(end);
            let mask = (u64::MAX >> (64 - (stop - start))) << (start % 64);
            self.words[(start / 64) as usize] ^= mask;
            start = stop;
        }
    }
}
