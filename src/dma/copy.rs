//! Copies to and from DMA memory, by volatile words ([M5](crate::rules#M5)).
//!
//! Words of 8 bytes are accessed where the address is a multiple of 8. The bytes before the first
//! and after the last such word are accessed one by one.

use crate::addr::PseudoPhysAddr;
use crate::paging::GuestMemory;
use crate::word::Word;

const WORD: usize = size_of::<u64>();

/// Copies the bytes from `at` on into `into`.
///
/// # Safety
/// The bytes lie in populated, mapped frames of the caller's ([M1](crate::rules#M1)).
pub unsafe fn read(memory: &impl GuestMemory, at: PseudoPhysAddr, into: &mut [u8]) {
    let (head, rest) = into.split_at_mut(head(at, into.len()));
    let (words, tail) = rest.as_chunks_mut();
    let mut place = Place { memory, next: at.get() };
    // SAFETY: the parts of `into` follow each other, so that each access lies in the bytes of the
    // function's requirement. The words begin where `head` ends: at a multiple of 8.
    unsafe {
        head.iter_mut().for_each(|byte| *byte = place.load());
        words.iter_mut().for_each(|word| *word = place.load::<u64>().to_ne_bytes());
        tail.iter_mut().for_each(|byte| *byte = place.load());
    }
}

/// Copies `from` to the bytes from `at` on.
///
/// # Safety
/// As for [`read`].
pub unsafe fn write(memory: &impl GuestMemory, at: PseudoPhysAddr, from: &[u8]) {
    let (head, rest) = from.split_at(head(at, from.len()));
    let (words, tail) = rest.as_chunks();
    let mut place = Place { memory, next: at.get() };
    // SAFETY: as in `read`.
    unsafe {
        head.iter().for_each(|byte| place.store(*byte));
        words.iter().for_each(|word| place.store(u64::from_ne_bytes(*word)));
        tail.iter().for_each(|byte| place.store(*byte));
    }
}

/// Fills `len` bytes from `at` on with zeros.
///
/// # Safety
/// As for [`read`].
pub unsafe fn zero(memory: &impl GuestMemory, at: PseudoPhysAddr, len: usize) {
    let head = head(at, len);
    let (words, tail) = ((len - head) / WORD, (len - head) % WORD);
    let mut place = Place { memory, next: at.get() };
    // SAFETY: as in `read`. The three parts have `len` bytes together.
    unsafe {
        (0..head).for_each(|_| place.store(0_u8));
        (0..words).for_each(|_| place.store(0_u64));
        (0..tail).for_each(|_| place.store(0_u8));
    }
}

/// Returns how many of `len` bytes lie before the first multiple of 8.
fn head(at: PseudoPhysAddr, len: usize) -> usize {
    len.min(at.get().wrapping_neg() as usize % WORD)
}

/// Where the next access of a copy lies.
struct Place<'m, M> {
    memory: &'m M,
    next: u64,
}

impl<M: GuestMemory> Place<'_, M> {
    /// Reads the next word.
    ///
    /// # Safety
    /// As for [`GuestMemory::load`].
    unsafe fn load<T: Word>(&mut self) -> T {
        // SAFETY: the function's requirement.
        unsafe { self.memory.load(self.advance::<T>()) }
    }

    /// Writes the next word.
    ///
    /// # Safety
    /// As for [`GuestMemory::store`].
    unsafe fn store<T: Word>(&mut self, value: T) {
        // SAFETY: the function's requirement.
        unsafe { self.memory.store(self.advance::<T>(), value) };
    }

    const fn advance<T>(&mut self) -> PseudoPhysAddr {
        let at = PseudoPhysAddr::new(self.next);
        self.next += size_of::<T>() as u64;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::dma::test_memory::TestMemory;

    /// How many bytes and words lie between two addresses.
    fn accesses(at: usize, len: usize) -> usize {
        let (first, last) = (at.next_multiple_of(8), (at + len) / 8 * 8);
        if first >= last { len } else { (first - at) + (last - first) / 8 + (at + len - last) }
    }

    /// Calls `check` for each place in a word and each length of up to four words, across the border
    /// of two pages.
    fn at_each_place(mut check: impl FnMut(&TestMemory, usize, usize)) {
        for at in 4080..4088 {
            for len in 0..32 {
                check(&TestMemory::new(2), at, len);
            }
        }
    }

    /// Checks the bytes of a range, and that no byte around it has changed.
    fn contains(memory: &TestMemory, at: usize, len: usize, expected: impl Fn(usize) -> u8) {
        for place in 4070..4130 {
            let inside = (at..at + len).contains(&place);
            let expected = if inside { expected(place - at) } else { 0xee };
            assert_eq!(memory.byte(place), expected, "byte {place} of {at} + {len}");
        }
    }

    #[test]
    fn a_copy_moves_each_byte_and_goes_by_whole_words() {
        at_each_place(|memory, at, len| {
            let bytes: [u8; 32] = core::array::from_fn(|index| index as u8 + 1);
            let start = PseudoPhysAddr::new(at as u64);
            // SAFETY: the bytes lie in the two pages of `memory`.
            unsafe { write(memory, start, &bytes[..len]) };
            assert_eq!(memory.take_accesses(), accesses(at, len), "{len} bytes at {at}");
            contains(memory, at, len, |index| bytes[index]);
            let mut found = [0; 32];
            // SAFETY: the bytes lie in the two pages of `memory`.
            unsafe { read(memory, start, &mut found[..len]) };
            assert_eq!(memory.take_accesses(), accesses(at, len), "{len} bytes at {at}");
            assert_eq!((&found[..len], &found[len..]), (&bytes[..len], &[0; 32][len..]));
        });
    }

    #[test]
    fn frames_are_copied_by_whole_words_unless_the_kernel_has_a_faster_way() {
        let memory = TestMemory::new(5);
        let value = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for index in 0..2 * 512 {
            // SAFETY: the word lies in the first two pages of `memory`.
            unsafe { memory.store(PseudoPhysAddr::new(index * 8), value(index)) };
        }
        memory.take_accesses();
        // SAFETY: the pages belong to `memory`, and pages 0 and 1 are apart from pages 2 and 3.
        unsafe { memory.copy(Pfn::new(0), Pfn::new(2), 2) };
        assert_eq!(memory.take_accesses(), 2 * 2 * 512);
        for index in 0..2 * 512 {
            // SAFETY: the word lies in the third and fourth page of `memory`.
            let copied = unsafe { memory.load::<u64>(PseudoPhysAddr::new((1024 + index) * 8)) };
            assert_eq!(copied, value(index));
        }
        assert!((4 * 4096..5 * 4096).all(|at| memory.byte(at) == 0xee), "the page after them");
    }

    #[test]
    fn zeros_are_written_to_each_byte_and_by_whole_words() {
        at_each_place(|memory, at, len| {
            // SAFETY: the bytes lie in the two pages of `memory`.
            unsafe { zero(memory, PseudoPhysAddr::new(at as u64), len) };
            assert_eq!(memory.take_accesses(), accesses(at, len), "{len} bytes at {at}");
            contains(memory, at, len, |_| 0);
        });
    }
}
