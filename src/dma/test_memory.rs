//! Memory of the host in place of a guest's, so that Miri can follow each access.

extern crate std;

use core::cell::Cell;
use std::vec;
use std::vec::Vec;

use crate::addr::{PAGE_SIZE, Pfn};
use crate::paging::GuestMemory;

/// Words of a page.
const WORDS: usize = PAGE_SIZE / 8;

/// Some pages of memory, which begin at address 0 of the guest.
///
/// It counts its accesses: [`GuestMemory::load`] and `store` ask once for the pointer of their frame.
pub struct TestMemory {
    words: Vec<Cell<[u64; WORDS]>>,
    accesses: Cell<usize>,
}

impl TestMemory {
    /// Pages of which each byte is 0xee.
    pub fn new(pages: usize) -> Self {
        let filled = Cell::new([0xeeee_eeee_eeee_eeee; WORDS]);
        Self { words: vec![filled; pages], accesses: Cell::new(0) }
    }

    /// Returns the number of accesses since the last call.
    pub fn take_accesses(&self) -> usize {
        self.accesses.take()
    }

    /// Returns a byte.
    pub fn byte(&self, at: usize) -> u8 {
        self.words[at / PAGE_SIZE].get()[at % PAGE_SIZE / 8].to_ne_bytes()[at % 8]
    }
}

// SAFETY: the pages lie side by side in a list that never grows. `zero` writes to its pages alone.
unsafe impl GuestMemory for TestMemory {
    unsafe fn zero(&self, first: Pfn, frames: u64) {
        let first = first.number() as usize;
        self.words[first..first + frames as usize].iter().for_each(|page| page.set([0; WORDS]));
    }

    fn pointer(&self, pfn: Pfn) -> *mut u8 {
        self.accesses.set(self.accesses.get() + 1);
        let first = self.words.as_ptr().cast_mut().cast::<u8>();
        first.wrapping_add(pfn.number() as usize * PAGE_SIZE)
    }
}
