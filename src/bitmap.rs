//! Which of the numbers below a limit are free, one bit for each. The numbers are guest frames, or
//! pages of a stretch of addresses.

/// What the caller of a search says about the run that begins with a number.
pub(crate) enum Try {
    /// The run fits.
    Fits,
    /// The run does not fit, and no run that begins before this number does.
    From(u64),
}

/// Words of the bitmap that one slice of a search reads.
pub(crate) const SLICE: u64 = 256;

/// The result of the search of a slice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// The run that begins with this number was taken.
    Taken(u64),
    /// No run that fits begins before this number.
    Continue(u64),
    /// No run from there on fits.
    End,
}

/// A bit for each number, set if the number is free. The embedder lends the memory.
#[derive(Debug)]
pub(crate) struct Bitmap<'a> {
    words: &'a mut [u64],
    limit: u64,
    free: u64,
    /// The number after the run that was taken last. The next search begins there.
    hint: u64,
    /// All numbers below are taken, so no search reads them.
    lowest: u64,
    /// This number and all above it are taken.
    end: u64,
}

impl<'a> Bitmap<'a> {
    /// Returns the number of words that `count` numbers need.
    pub const fn words(count: u64) -> usize {
        count.div_ceil(64) as usize
    }

    /// Returns a bitmap of the numbers below `limit`, none of them free.
    ///
    /// # Panics
    /// If there are fewer words than [`words`](Self::words) returns.
    pub fn new(words: &'a mut [u64], limit: u64) -> Self {
        assert!(words.len() >= Self::words(limit), "a bitmap too small for {limit}");
        words.fill(0);
        Self { words, limit, free: 0, hint: 0, lowest: limit, end: 0 }
    }

    /// Returns how many numbers are free.
    pub const fn free(&self) -> u64 {
        self.free
    }

    /// Takes a run of `count` numbers, the first of which is a multiple of `align`, a power of two.
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

    /// Searches a slice of the bitmap, from `from` on, for a run of `count` numbers that `fits` accepts, and
    /// takes it. Reads at most [`SLICE`] words and calls `fits` at most as often.
    pub fn take_where(&mut self, count: u64, from: u64, mut fits: impl FnMut(u64) -> Try) -> Slice {
        if count == 0 || count > self.free {
            return Slice::End;
        }
        let mut from = from.max(self.lowest);
        let mut budget = SLICE;
        while budget > 0 {
            let Some(end) = from.checked_add(count).filter(|end| *end <= self.end) else {
                return Slice::End;
            };
            budget -= 1;
            let stop = self.end.min(from.saturating_add(64 * budget));
            let Some(free) = self.next_free(from, stop) else {
                budget = budget.saturating_sub((stop - from) / 64);
                from = stop;
                continue;
            };
            if free > from {
                budget = budget.saturating_sub((free - from) / 64);
                from = free;
                continue;
            }
            if let Some(taken) = self.last_taken(from, count) {
                budget = budget.saturating_sub((end - taken) / 64);
                from = taken + 1;
                continue;
            }
            budget = budget.saturating_sub(count / 64);
            match fits(from) {
                Try::Fits => {
                    self.flip(from, count);
                    self.free -= count;
                    return Slice::Taken(from);
                }
                Try::From(next) => from = next.max(from + 1),
            }
        }
        Slice::Continue(from)
    }

    /// Takes a run back.
    ///
    /// # Errors
    /// The first number that is free already or beyond the limit. Then no number is taken back.
    pub fn give(&mut self, first: u64, count: u64) -> Result<(), u64> {
        let end = first.checked_add(count).filter(|end| *end <= self.limit);
        let wrong = match end {
            None => Some(self.limit.max(first)),
            Some(end) => self.next_free(first, end),
        };
        if let Some(number) = wrong {
            return Err(number);
        }
        if self.free == 0 {
            (self.lowest, self.end) = (self.limit, 0);
        }
        self.flip(first, count);
        self.free += count;
        self.hint = self.hint.min(first);
        self.lowest = self.lowest.min(first);
        self.end = self.end.max(first + count);
        Ok(())
    }

    /// Returns the first fit from `from` on.
    fn search(&mut self, from: u64, count: u64, align: u64) -> Option<u64> {
        let mut first = from;
        loop {
            let Some(free) = self.next_free(first.max(self.lowest), self.end) else {
                self.end = self.end.min(first.max(self.lowest));
                return None;
            };
            if first <= self.lowest {
                self.lowest = free;
            }
            first = free.checked_add(align - 1)? & !(align - 1);
            if first.checked_add(count)? > self.end {
                return None;
            }
            match self.last_taken(first, count) {
                None => return Some(first),
                Some(taken) => first = taken + 1,
            }
        }
    }

    /// Returns the first free number in `from..end`.
    fn next_free(&self, from: u64, end: u64) -> Option<u64> {
        let mut start = from;
        while start < end {
            let word = self.words[(start / 64) as usize] >> (start % 64);
            if word != 0 {
                let number = start + u64::from(word.trailing_zeros());
                return (number < end).then_some(number);
            }
            start = (start | 63) + 1;
        }
        None
    }

    /// Returns the last number of the run that is taken: no fit begins at or before it.
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
