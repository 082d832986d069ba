//! Which objects of a chunk are in use.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// Objects that a word records.
const PER_WORD: u64 = u64::BITS as u64;

/// Returns the number of objects in use whose bits are in `words`.
pub fn in_use(words: &[AtomicU64]) -> u64 {
    words.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
}

/// One bit for each object of a chunk, set while the object is in use.
///
/// Each change is one atomic operation on one word, and nothing is locked. An interrupt handler
/// that interrupts a call at any instruction, or another vCPU, finds each bit clear or set.
#[derive(Clone, Copy)]
pub struct ObjectBits<'c> {
    words: &'c [AtomicU64],
    objects: u64,
    available: &'c AtomicU64,
}

impl<'c> ObjectBits<'c> {
    /// Returns the bits of `objects` objects, kept in `words`.
    ///
    /// `available` counts the free objects of the whole pool. It is never above the number of clear
    /// bits: a caller decrements it before it takes an object, and [`give`](Self::give) increments
    /// it.
    pub const fn new(words: &'c [AtomicU64], objects: u64, available: &'c AtomicU64) -> Self {
        Self { words, objects, available }
    }

    /// Returns the number of words for `objects` objects.
    pub const fn words(objects: u64) -> usize {
        objects.div_ceil(PER_WORD) as usize
    }

    /// Takes a free object and returns its number. The caller has decremented the count.
    pub fn take(&self) -> Option<u64> {
        for (word, first) in self.words.iter().zip((0..self.objects).step_by(PER_WORD as usize)) {
            let valid = u64::MAX >> (PER_WORD - (self.objects - first).min(PER_WORD));
            let mut used = word.load(Relaxed);
            while !used & valid != 0 {
                let bit = (!used & valid).trailing_zeros();
                // Acquire, for the Release in `give`: the accesses of the previous owner to the
                // object happen before those of this one.
                used = word.fetch_or(1 << bit, Acquire);
                if used >> bit & 1 == 0 {
                    return Some(first + u64::from(bit));
                }
            }
        }
        None
    }

    /// Makes an object free.
    pub fn give(&self, object: u64) {
        if let Some(word) = self.words.get((object / PER_WORD) as usize) {
            word.fetch_and(!(1 << (object % PER_WORD)), Release);
        }
        // Release: a caller that decrements the count sees the clear bit.
        self.available.fetch_add(1, Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::AtomicBool;
    use std::sync::Barrier;
    use std::thread;
    use std::vec::Vec;

    use super::*;

    fn words(objects: u64) -> Vec<AtomicU64> {
        (0..ObjectBits::words(objects)).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn each_object_is_handed_out_once_and_no_other() {
        for objects in [0, 1, 63, 64, 65, 100, 511, 512, 5000] {
            let (words, returned) = (words(objects), AtomicU64::new(0));
            let bits = ObjectBits::new(&words, objects, &returned);
            for index in 0..objects {
                assert_eq!((in_use(&words), bits.take()), (index, Some(index)));
            }
            assert_eq!((bits.take(), in_use(&words)), (None, objects));
            for (count, index) in (1..=objects).zip([objects.saturating_sub(1), objects / 2, 0]) {
                bits.give(index);
                assert_eq!((in_use(&words), returned.load(Relaxed)), (objects - 1, count));
                assert_eq!(bits.take(), Some(index));
            }
        }
    }

    #[test]
    fn no_two_threads_have_an_object_at_a_time() {
        let (words, returned, start) = (words(3), AtomicU64::new(0), Barrier::new(4));
        let bits = ObjectBits::new(&words, 3, &returned);
        let owned = [const { AtomicBool::new(false) }; 3];
        let worker = || {
            start.wait();
            for _ in 0..300_000 {
                let Some(object) = bits.take() else { continue };
                assert!(!owned[object as usize].swap(true, Relaxed), "{object} has two owners");
                owned[object as usize].store(false, Relaxed);
                bits.give(object);
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(worker))));
        assert_eq!(in_use(&words), 0);
    }
}
