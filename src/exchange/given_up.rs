//! Which machine frames were given up: asked once for every frame that the M2P has on record.

/// Machine frames of a chunk that was given up.
///
/// A chunk has up to 262,144 frames, and the M2P at least as many entries to ask about. So the list
/// is sorted where it stands, which takes no memory, and each question looks at some 18 of it.
#[derive(Debug)]
pub(super) struct GivenUp<'l, T> {
    sorted: &'l [T],
}

impl<'l, T: Ord> GivenUp<'l, T> {
    /// The set of what a list names. The list is in another order from here on.
    pub fn of(list: &'l mut [T]) -> Self {
        list.sort_unstable();
        Self { sorted: list }
    }

    /// How many frames there are.
    pub const fn frames(&self) -> u64 {
        self.sorted.len() as u64
    }

    /// Whether a frame is one of them.
    pub fn contains(&self, frame: &T) -> bool {
        self.sorted.binary_search(frame).is_ok()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::cell::Cell;
    use core::cmp::Ordering;
    use std::thread_local;
    use std::vec::Vec;

    use super::*;

    thread_local! {
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    /// A frame number that counts how often it is compared.
    #[derive(Debug)]
    struct Counted(u64);

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl Eq for Counted {}

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    fn comparisons<T>(of: impl FnOnce() -> T) -> (T, u64) {
        COMPARISONS.set(0);
        let value = of();
        (value, COMPARISONS.get())
    }

    /// Every other frame of twice as many, in several orders.
    fn lists(frames: u64) -> [Vec<Counted>; 3] {
        let even = |index: u64| Counted(2 * index);
        let scattered = |index: u64| even(index.wrapping_mul(0x9e37_79b9) % frames);
        [
            (0..frames).map(even).collect(),
            (0..frames).rev().map(even).collect(),
            (0..frames).map(scattered).collect(),
        ]
    }

    #[test]
    fn of_the_largest_chunk_each_question_takes_few_comparisons() {
        const ORDER: u64 = 18;
        let frames = 1 << ORDER;
        for mut list in lists(frames) {
            let (set, sorting) = comparisons(|| GivenUp::of(&mut list));
            assert_eq!(set.frames(), frames);
            assert!(sorting <= 2 * ORDER * frames, "{sorting} to sort {frames} frames");
            for number in 0..2 * frames {
                let (given_up, asking) = comparisons(|| set.contains(&Counted(number)));
                assert_eq!(given_up, number.is_multiple_of(2), "{number}");
                assert!(asking <= ORDER + 1, "{asking} for frame {number} of {frames}");
            }
        }
    }

    #[test]
    fn a_set_of_none_and_of_one() {
        assert!(!GivenUp::of(&mut [0_u64; 0]).contains(&0));
        let mut one = [7_u64];
        let one = GivenUp::of(&mut one);
        assert_eq!([6, 7, 8].map(|number| one.contains(&number)), [false, true, false]);
    }
}
