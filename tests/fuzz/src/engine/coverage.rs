//! The runtime for the compiler's `sancov-module` pass.
//!
//! The pass counts each edge and reports the operands of each comparison. The Makefile's target `fuzz`
//! passes its flags. A build without them has no counters, and the engine then runs without guidance.

#![expect(unsafe_code, reason = "the pass calls functions of fixed names with raw pointers")]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The address and the length of each array of counters.
static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// The latest operands of comparisons, as a ring.
static OPERANDS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The edges that any input took. A bit for each class says how often one input took the edge.
#[derive(Debug, Default)]
pub struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    /// Returns how many edges the program has.
    pub fn edges() -> usize {
        counters().iter().map(|(_, len)| len).sum()
    }

    /// Sets all counters to 0.
    pub fn reset() {
        for (start, len) in counters() {
            // SAFETY: the counters of a module are bytes that live as long as the program. The target
            // runs on this thread alone, so nothing else accesses them now.
            unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) }.fill(0);
        }
    }

    /// Adds the counters since the last reset. Returns true if an edge or a class is new.
    pub fn absorb(&mut self) -> bool {
        let mut new = false;
        let mut index = 0;
        self.seen.resize(Self::edges(), 0);
        for (start, len) in counters() {
            // SAFETY: the counters of a module are bytes that live as long as the program. The target
            // runs on this thread alone, so nothing writes to them now.
            let counters = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
            for (counts, seen) in counters.chunks(64).zip(self.seen[index..].chunks_mut(64)) {
                // Nearly all counters are 0, so a chunk of zeros is skipped at once.
                if counts.iter().fold(0, |sum, count| sum | count) != 0 {
                    new |= absorb(counts, seen);
                }
            }
            index += len;
        }
        new
    }

    /// Returns how many edges any input took.
    pub fn taken(&self) -> usize {
        self.seen.iter().filter(|classes| **classes != 0).count()
    }
}

fn absorb(counts: &[u8], seen: &mut [u8]) -> bool {
    let mut new = false;
    for (count, seen) in counts.iter().zip(seen) {
        // Each class of counts (1, 2, 3, 4 to 7, …) is a new result of its own.
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

/// Returns an operand of a recent comparison in the code under test.
pub fn operand(at: usize) -> u64 {
    OPERANDS[at % OPERANDS.len()].load(Relaxed)
}

fn counters() -> Vec<(usize, usize)> {
    COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Records an operand.
///
/// It is always inlined into the functions below, which the pass excludes by their names. In a function
/// of its own the pass would report the comparison to this function, without end.
#[inline(always)]
fn note(operand: u64) {
    // The engine finds small numbers without help.
    if operand > 0xff {
        // One thread calls this very often, so a load and a store replace `fetch_add`.
        let at = NEXT.load(Relaxed);
        NEXT.store(at.wrapping_add(1), Relaxed);
        OPERANDS[at & (OPERANDS.len() - 1)].store(operand, Relaxed);
    }
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let array = (start as usize, stop as usize - start as usize);
    let mut arrays = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    // Each object file of a module passes the same array.
    if array.1 > 0 && !arrays.contains(&array) {
        arrays.push(array);
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
    // SAFETY: the pass passes an array: a count, a width, and that many cases.
    let cases = unsafe { std::slice::from_raw_parts(cases.add(2), cases.read() as usize) };
    cases.iter().for_each(|case| note(*case));
}
