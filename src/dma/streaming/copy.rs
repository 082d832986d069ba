//! Copies between memory of the guest and memory that a device accesses.
//!
//! On the device's side all accesses are volatile, and whole words where the address allows it. The
//! guest's side may have any alignment, and some of its bytes may be uninitialised. No reference is made
//! to either side ([M5](crate::rules#M5)). `dma::copy` is for the driver's own slices, whose bytes are all
//! initialised, and goes through `GuestMemory`.

use core::mem::MaybeUninit;

type Byte = MaybeUninit<u8>;
type EightBytes = MaybeUninit<u64>;

const WORD: usize = size_of::<EightBytes>();

/// Visits the bytes of DMA memory at `address` by their offsets: aligned words by `word`, the bytes before
/// and after them by `byte`.
fn visit(address: usize, len: usize, mut byte: impl FnMut(usize), mut word: impl FnMut(usize)) {
    let head = (address.wrapping_neg() % WORD).min(len);
    let words_end = len - (len - head) % WORD;
    (0..head).for_each(&mut byte);
    (head..words_end).step_by(WORD).for_each(&mut word);
    (words_end..len).for_each(&mut byte);
}

/// Copies `len` bytes of the guest to DMA memory.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and the two are apart.
pub unsafe fn copy_to_dma(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `visit` passes offsets of bytes, and of words, that lie below `len`. Words are aligned on the
    // side of `to`.
    visit(
        to.addr(),
        len,
        |at| unsafe {
            to.add(at).cast::<Byte>().write_volatile(from.add(at).cast::<Byte>().read())
        },
        |at| unsafe {
            to.add(at)
                .cast::<EightBytes>()
                .write_volatile(from.add(at).cast::<EightBytes>().read_unaligned());
        },
    );
}

/// Copies `len` bytes of DMA memory to the guest.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and the two are apart.
pub unsafe fn copy_from_dma(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `visit` passes offsets of bytes, and of words, that lie below `len`. Words are aligned on the
    // side of `from`.
    visit(
        from.addr(),
        len,
        |at| unsafe {
            to.add(at).cast::<Byte>().write(from.add(at).cast::<Byte>().read_volatile())
        },
        |at| unsafe {
            to.add(at)
                .cast::<EightBytes>()
                .write_unaligned(from.add(at).cast::<EightBytes>().read_volatile());
        },
    );
}

/// Fills `len` bytes of DMA memory with zeros.
///
/// # Safety
/// `to` is valid for writes of `len` bytes.
pub unsafe fn zero_dma(to: *mut u8, len: usize) {
    // SAFETY: `visit` passes offsets of bytes, and of aligned words, that lie below `len`.
    visit(
        to.addr(),
        len,
        |at| unsafe { to.add(at).write_volatile(0) },
        |at| unsafe { to.add(at).cast::<u64>().write_volatile(0) },
    );
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// Tries every length and both alignments, and finds a byte too few or too many.
    #[test]
    fn copies_are_exact_at_every_alignment_and_length() {
        const ROOM: usize = 64;
        for from in 0..WORD {
            for to in 0..WORD {
                for len in 0..ROOM - 2 * WORD {
                    let source: Vec<u8> = (1..).take(ROOM).collect();
                    let expected = |at: usize, zero: bool| match at.checked_sub(to) {
                        Some(within) if within < len => {
                            if zero {
                                0
                            } else {
                                source[from + within]
                            }
                        }
                        _ => 0xff,
                    };
                    let mut copies = [[0xff_u8; ROOM]; 3];
                    let [out, back, zeroed] = copies.each_mut().map(|it| it.as_mut_ptr());
                    // SAFETY: the bytes lie within the arrays, which are apart.
                    unsafe {
                        copy_to_dma(source.as_ptr().add(from), out.add(to), len);
                        copy_from_dma(source.as_ptr().add(from), back.add(to), len);
                        zero_dma(zeroed.add(to), len);
                    }
                    for (copy, zero) in copies.iter().zip([false, false, true]) {
                        let whole = (0..ROOM).all(|at| copy[at] == expected(at, zero));
                        assert!(whole, "{len} bytes from {from} to {to}: {copy:x?}");
                    }
                }
            }
        }
    }
}
