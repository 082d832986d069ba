//! Makes the scripts small, for they are in the kernel image: without comments, and with a byte above
//! 127 for each of the most frequent pairs of bytes, over and over (byte-pair encoding).

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

const SCRIPTS: [&str; 2] = ["pv", "translated"];

fn main() {
    let mut texts = SCRIPTS.map(|name| {
        let path = format!("{name}.txt");
        println!("cargo::rerun-if-changed={path}");
        let text = fs::read_to_string(&path).expect("a script of this crate");
        // The lines of comments stay, so that the others keep their numbers.
        let bare =
            |line: &str| if line.starts_with('#') { String::new() } else { line.to_string() };
        let text = text.lines().map(bare).collect::<Vec<_>>().join("\n");
        assert!(text.is_ascii(), "{path} has to be ASCII but for its comments");
        text.into_bytes()
    });
    let mut pairs = Vec::new();
    for code in 0x80..=0xff_u8 {
        let mut counts = HashMap::new();
        for pair in texts.iter().flat_map(|text| text.windows(2)) {
            *counts.entry([pair[0], pair[1]]).or_insert(0) += 1;
        }
        // The pair itself decides between equals: the same image from the same sources.
        let (pair, _) = counts.into_iter().max_by_key(|(pair, n)| (*n, *pair)).expect("a text");
        texts = texts.map(|text| replace(&text, pair, code));
        pairs.push(pair);
    }
    let mut source = String::new();
    writeln!(source, "pub(super) const PAIRS: [[u8; 2]; {}] = {pairs:?};", pairs.len()).unwrap();
    for (name, text) in SCRIPTS.iter().zip(texts) {
        let name = name.to_uppercase();
        writeln!(source, "pub(super) const {name}: [u8; {}] = {text:?};", text.len()).unwrap();
    }
    let place = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where"));
    fs::write(place.join("packed.rs"), source).expect("room for a few kilobytes");
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
