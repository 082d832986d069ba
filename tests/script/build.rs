//! Packs the scripts, because they are part of the kernel image.
//!
//! It removes the comments. Then it replaces the most frequent pair of bytes by a byte above 127,
//! 128 times (byte-pair encoding).

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

const SCRIPTS: [&str; 2] = ["pv", "translated"];

fn main() {
    let mut texts = SCRIPTS.map(|name| {
        let path = format!("{name}.txt");
        println!("cargo::rerun-if-changed={path}");
        let text = fs::read_to_string(&path).expect("the script is a file of this crate");
        // Comments become empty lines, so that the other lines keep their numbers.
        let bare =
            |line: &str| if line.starts_with('#') { String::new() } else { line.to_string() };
        let text = text.lines().map(bare).collect::<Vec<_>>().join("\n");
        assert!(text.is_ascii(), "{path} must be ASCII, except in its comments");
        text.into_bytes()
    });
    let mut pairs = Vec::new();
    for code in 0x80..=0xff_u8 {
        let mut counts = HashMap::new();
        for pair in texts.iter().flat_map(|text| text.windows(2)) {
            *counts.entry([pair[0], pair[1]]).or_insert(0) += 1;
        }
        // Of pairs with the same count, the larger one wins. Equal sources give an equal image.
        let (pair, _) = counts
            .into_iter()
            .max_by_key(|(pair, n)| (*n, *pair))
            .expect("the scripts have at least two bytes");
        texts = texts.map(|text| replace(&text, pair, code));
        pairs.push(pair);
    }
    let mut source = String::new();
    writeln!(source, "pub(super) const PAIRS: [[u8; 2]; {}] = {pairs:?};", pairs.len()).unwrap();
    for (name, text) in SCRIPTS.iter().zip(texts) {
        let name = name.to_uppercase();
        writeln!(source, "pub(super) const {name}: [u8; {}] = {text:?};", text.len()).unwrap();
    }
    let place = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(place.join("packed.rs"), source).expect("OUT_DIR is writable");
}

fn replace(text: &[u8], pair: [u8; 2], code: u8) -> Vec<u8> {
    let (mut replaced, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let hit = text[at..].starts_with(&pair);
        replaced.push(if hit { code } else { text[at] });
        at += 1 + usize::from(hit);
    }
    replaced
}
