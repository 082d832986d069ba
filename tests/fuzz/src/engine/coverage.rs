//! What the compiler's `sancov-module` pass wants of a runtime: a counter for each edge, and the
//! operands of each comparison.
//!
//! The flags are in the Makefile, at `fuzz`. In a build without them nobody calls these functions,
//! there are no counters, and the engine is blind.

#![expect(unsafe_code, reason = "the pass calls functions of fixed names with raw pointers")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Where counters are: address and length of each stretch.
static STRETCHES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Operands that a comparison was made with, the latest over the oldest.
static OPERANDS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Edges that were ever taken, with how often in classes.
#[derive(Debug, Default)]
pub struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    /// How many edges there are.
    pub fn edges() -> usize {
        stretches().iter().map(|(_, len)| len).sum()
    }

    /// Forgets what was counted so far.
    pub fn reset() {
        for (start, len) in stretches() {
            // SAFETY: the counters of a module are bytes that live as long as the program; the
            // target runs on this thread alone, so nobody counts now.
            unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) }.fill(0);
        }
    }

    /// Takes in what was counted since. Answers whether any of it is new.
    pub fn absorb(&mut self) -> bool {
        let mut new = false;
        let mut index = 0;
        self.seen.resize(Self::edges(), 0);
        for (start, len) in stretches() {
            // SAFETY: as above.
            let counters = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
            for (counts, seen) in counters.chunks(64).zip(self.seen[index..].chunks_mut(64)) {
                // Nearly all are 0, always.
                if counts.iter().fold(0, |sum, count| sum | count) != 0 {
                    new |= absorb(counts, seen);
                }
            }
            index += len;
        }
        new
    }

    /// How many edges were ever taken.
    pub fn taken(&self) -> usize {
        self.seen.iter().filter(|classes| **classes != 0).count()
    }
}

fn absorb(counts: &[u8], seen: &mut [u8]) -> bool {
    let mut new = false;
    for (count, seen) in counts.iter().zip(seen) {
        // Once, twice, a few times, many times: each is news of its own.
        let class = match count {
            0 => 0,
            1 => 1,
            2 => 2,
            3 => 4,
            4..=7 => 8,
            8..=15 => 16,
            16..=31 => 32,
            32..=127 => 64,
            128.. => 128,
        };
        new |= class & !*seen != 0;
        *seen |= class;
    }
    new
}

/// A number that the code under test has compared something with.
pub fn operand(at: usize) -> u64 {
    OPERANDS[at % OPERANDS.len()].load(Relaxed)
}

fn stretches() -> Vec<(usize, usize)> {
    STRETCHES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Always part of the functions below: those the compiler leaves alone by their names, while here it
/// would report the comparison, to this very function.
#[inline(always)]
fn note(operand: u64) {
    // Small numbers are found without help.
    if operand > 0xff {
        // Not a `fetch_add`: this is called all the time, and by one thread.
        let at = NEXT.load(Relaxed);
        NEXT.store(at.wrapping_add(1), Relaxed);
        OPERANDS[at & (OPERANDS.len() - 1)].store(operand, Relaxed);
    }
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let stretch = (start as usize, stop as usize - start as usize);
    let mut stretches = STRETCHES.lock().unwrap_or_else(PoisonError::into_inner);
    // Called by each object file of a module with the same stretch.
    if stretch.1 > 0 && !stretches.contains(&stretch) {
        stretches.push(stretch);
    }
}

macro_rules! comparison {
    ($($name:ident: $type:ty),*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name(left: $type, right: $type) {
            note(left.into());
            note(right.into());
        })*
    };
}

comparison! {
    __sanitizer_cov_trace_cmp2: u16,
    __sanitizer_cov_trace_cmp4: u32,
    __sanitizer_cov_trace_cmp8: u64
}

macro_rules! comparison_with_constant {
    ($($name:ident: $type:ty),*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name(constant: $type, _: $type) {
            note(constant.into());
        })*
    };
}

comparison_with_constant! {
    __sanitizer_cov_trace_const_cmp2: u16,
    __sanitizer_cov_trace_const_cmp4: u32,
    __sanitizer_cov_trace_const_cmp8: u64
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_cmp1(_: u8, _: u8) {}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_const_cmp1(_: u8, _: u8) {}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_switch(_: u64, cases: *const u64) {
    // SAFETY: the pass hands over a count, a width and that many cases.
    let cases = unsafe { std::slice::from_raw_parts(cases.add(2), cases.read() as usize) };
    cases.iter().for_each(|case| note(*case));
}
