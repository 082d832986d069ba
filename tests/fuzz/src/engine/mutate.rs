//! Turns an input into a similar one.

use super::coverage;
use super::random::FuzzRandom;

/// Numbers at which arithmetic often fails.
const EDGES: [u64; 16] = [
    0,
    1,
    7,
    8,
    0x7f,
    0xff,
    0x1000,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    u64::MAX - 0xfff,
    u64::MAX - 7,
    u64::MAX - 1,
    u64::MAX,
];

/// Makes one to eight changes to `input`.
///
/// Bytes can come from `other`, which is another input, and from `words`, which the format consists of.
pub fn mutate(
    input: &mut Vec<u8>,
    other: &[u8],
    words: &[&[u8]],
    max_len: usize,
    random: &mut FuzzRandom,
) {
    for _ in 0..1 << random.below(4) {
        once(input, other, words, random);
        input.truncate(max_len);
    }
}

fn once(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut FuzzRandom) {
    let at = random.below(input.len() + 1);
    match random.below(11) {
        0 => flip(input, at, random),
        1 => put(input, at, [random.next() as u8]),
        2 => put(input, at, number(EDGES[random.below(16)], random)),
        3 => put(input, at, number(coverage::operand(random.below(64)), random)),
        4 => nudge(input, at, random),
        5 => {
            let len = random.below(9) + 1;
            let fresh: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            input.splice(at..at, fresh);
        }
        6 => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        7 if !words.is_empty() => {
            let word = random.pick(words).to_vec();
            if random.below(2) == 0 {
                put(input, at, word);
            } else {
                input.splice(at..at, word);
            }
        }
        8 => put(input, at, stretch(other, random)),
        9 => {
            input.splice(at..at, stretch(other, random).to_vec());
        }
        _ => {
            let again = stretch(input, random).to_vec();
            input.splice(at..at, again);
        }
    }
}

fn flip(input: &mut [u8], at: usize, random: &mut FuzzRandom) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Overwrites bytes from `at` on. Bytes past the end are appended.
fn put(input: &mut Vec<u8>, at: usize, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let end = (at + bytes.len()).min(input.len());
    input.splice(at..end, bytes.iter().copied());
}

/// Returns a number near `number` as 1 to 8 bytes, little-endian.
fn number(number: u64, random: &mut FuzzRandom) -> Vec<u8> {
    let near = number.wrapping_add(random.below(5) as u64).wrapping_sub(2);
    near.to_le_bytes()[..1 << random.below(4)].to_vec()
}

/// Adds a number from -17 to 17 to the number at `at`.
fn nudge(input: &mut [u8], at: usize, random: &mut FuzzRandom) {
    let width = (1 << random.below(4)).min(input.len() - at);
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&input[at..at + width]);
    let by = random.below(35) as u64;
    let sum = u64::from_le_bytes(bytes).wrapping_add(by).wrapping_sub(17);
    input[at..at + width].copy_from_slice(&sum.to_le_bytes()[..width]);
}

fn stretch<'a>(of: &'a [u8], random: &mut FuzzRandom) -> &'a [u8] {
    let start = random.below(of.len() + 1);
    let len = random.below(33).min(of.len() - start);
    &of[start..start + len]
}
