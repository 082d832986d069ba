//! The content of disks and of transfers, and how a difference is named.

/// Returns `words` words of 64 bits, of which word `i` was made of `seed + i`.
pub fn content(words: usize, seed: u64, make: impl Fn(usize, u64) -> u64) -> Vec<u8> {
    let words = (0..words).map(|index| make(index, seed.wrapping_add(index as u64)));
    words.flat_map(u64::to_le_bytes).collect()
}

/// Returns the position of the first byte that is not as expected, and what it is instead.
pub fn difference(found: &[u8], expected: &[u8]) -> Option<(usize, String)> {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some((at, format!("is {:#04x}, not {:#04x}", found[at], expected[at])))
}
