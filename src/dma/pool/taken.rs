//! Which objects of a chunk are taken, in private memory.

use core::array;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::AtomicU64;

/// The most objects in a chunk.
pub const MAX_OBJECTS: u64 = 512;

const WORDS: usize = MAX_OBJECTS as usize / 64;

/// A bit for each object, set while it is taken.
///
/// Taking one is a single atomic `or` on a word that was seen to have a clear bit; whoever finds
/// the bit set by someone else in between looks again. So nobody ever waits for anybody: an
/// interrupt handler that cuts in at any instruction finds a bit either clear or taken.
#[derive(Debug)]
pub struct Taken {
    words: [AtomicU64; WORDS],
    objects: u64,
}

impl Taken {
    /// `objects` objects, 512 at most, none of them taken.
    pub fn new(objects: u64) -> Self {
        Self { words: array::from_fn(|_| AtomicU64::new(0)), objects: objects.min(MAX_OBJECTS) }
    }

    /// How many objects there are.
    pub const fn objects(&self) -> u64 {
        self.objects
    }

    /// How many of them are taken.
    pub fn in_use(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }

    /// Takes an object that nobody has.
    pub fn take(&self) -> Option<u64> {
        let used = self.words.iter().zip((0..self.objects).step_by(64));
        for (word, first) in used {
            let mask = u64::MAX >> (64 - (self.objects - first).min(64));
            let mut seen = word.load(Relaxed);
            while !seen & mask != 0 {
                let bit = (!seen & mask).trailing_zeros();
                // Acquire: what the previous owner did to the memory comes before what this one
                // does; it is the other half of the Release in `give`.
                seen = word.fetch_or(1 << bit, Acquire);
                if seen >> bit & 1 == 0 {
                    return Some(first + u64::from(bit));
                }
            }
        }
        None
    }

    /// Takes an object back.
    pub fn give(&self, object: u64) {
        if let Some(word) = self.words.get((object / 64) as usize) {
            word.fetch_and(!(1 << (object % 64)), Release);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::AtomicBool;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn each_object_is_handed_out_once_and_no_more_than_there_are() {
        for objects in [1, 63, 64, 65, 100, 511, 512] {
            let taken = Taken::new(objects);
            for index in 0..objects {
                assert_eq!(taken.take(), Some(index));
            }
            assert_eq!((taken.take(), taken.in_use()), (None, objects));
            for index in [objects - 1, objects / 2, 0] {
                taken.give(index);
                assert_eq!((taken.in_use(), taken.take()), (objects - 1, Some(index)));
            }
        }
    }

    #[test]
    fn no_objects_and_too_many_are_no_trouble() {
        assert_eq!(Taken::new(0).take(), None);
        let taken = Taken::new(u64::MAX);
        assert_eq!((0..).map_while(|_: u32| taken.take()).count() as u64, MAX_OBJECTS);
    }

    /// Three objects for four threads, and nothing between taking and giving but the question
    /// whether someone else has it.
    #[test]
    fn nobody_gets_what_another_has() {
        let (taken, start) = (Taken::new(3), Barrier::new(4));
        let owned = [const { AtomicBool::new(false) }; 3];
        let worker = || {
            start.wait();
            for _ in 0..300_000 {
                let Some(object) = taken.take() else { continue };
                assert!(!owned[object as usize].swap(true, Relaxed), "{object} has two owners");
                owned[object as usize].store(false, Relaxed);
                taken.give(object);
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(worker))));
        assert_eq!(taken.in_use(), 0);
    }
}
