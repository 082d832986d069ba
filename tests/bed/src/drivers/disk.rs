//! The disk of a driver: made before the guest, with content that the guest checks, and read after the
//! guest has ended.

use std::fs;
use std::path::Path;

use super::content::{content, difference};
use crate::error::{Error, Result};
use crate::setup::write;

/// Makes a disk of `words` words of 64 bits, of which word `i` is `seed + i`.
pub fn make(path: &Path, words: usize, seed: u64) -> Result<()> {
    write(path, &content(words, seed, |_, word| word))
}

/// Checks that the guest wrote the complement into the second half of the disk, and nothing else.
pub fn check(path: &Path, words: usize, seed: u64) -> Result<std::result::Result<(), String>> {
    let found = fs::read(path).map_err(|e| Error::file("reading", path, e))?;
    Ok(is_written(words, seed, &found, path))
}

/// Checks that the first half is unchanged, and that the second has the complement of its first content.
fn is_written(
    words: usize,
    seed: u64,
    found: &[u8],
    disk: &Path,
) -> std::result::Result<(), String> {
    let complete = |index, word: u64| if index < words / 2 { word } else { !word };
    let expected = content(words, seed, complete);
    if found.len() != expected.len() {
        return Err(format!("{} has {} bytes now", disk.display(), found.len()));
    }
    match difference(found, &expected) {
        None => Ok(()),
        Some((at, what)) => Err(format!("byte {at} of {} {what}", disk.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: usize = 32 << 10;

    #[test]
    fn the_second_half_must_be_the_complement() {
        let disk = Path::new("disk.img");
        let seed = u64::MAX - 5;
        let untouched = content(WORDS, seed, |_, word| word);
        assert_eq!(untouched[..9], [250, 255, 255, 255, 255, 255, 255, 255, 251]);
        let is_written = |seed, found: &[u8]| is_written(WORDS, seed, found, disk);
        let half = WORDS / 2 * 8;
        let mut written = untouched.clone();
        written[half..].iter_mut().for_each(|byte| *byte = !*byte);
        assert_eq!(is_written(seed, &written), Ok(()));
        for (at, change) in [(0, "byte 0 "), (half - 1, "byte 131071 "), (half, "byte 131072 ")] {
            let mut wrong = written.clone();
            wrong[at] = !wrong[at];
            let fault = is_written(seed, &wrong).unwrap_err();
            assert!(fault.contains(change), "{fault}");
        }
        assert!(is_written(seed, &untouched).unwrap_err().contains("byte 131072 "));
        assert!(is_written(seed, &written[1..]).unwrap_err().contains("262143"));
        assert!(is_written(seed + 1, &written).is_err());
    }
}
