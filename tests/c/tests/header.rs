//! Does `c/include/xen_contig.h` declare what the library defines?
//!
//! `cbindgen` makes declarations from the library's sources. Both texts are cut into declarations, and the two
//! sets must be equal: names, parameters, types, the order of members, and constants. The compiler computes
//! the places of members from these, in C and in Rust alike.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn library_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../c")
}

/// Returns the header that `cbindgen` makes of the library.
fn generated() -> String {
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Tag,
        documentation: false,
        usize_is_size_t: true,
        line_length: 10_000,
        ..cbindgen::Config::default()
    };
    let mut builder = cbindgen::Builder::new().with_config(config);
    for entry in fs::read_dir(library_path().join("src")).unwrap() {
        builder = builder.with_src(entry.unwrap().path());
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

/// Removes comments.
fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").expect("comments end").1;
    }
    code + rest
}

/// Returns the declarations of a header: constants, structures and functions, each with one space between
/// words.
fn declarations(header: &str) -> BTreeSet<String> {
    let code = without_comments(header);
    let (directives, code): (Vec<_>, Vec<_>) = code.lines().partition(|line| line.starts_with('#'));
    // The guard of the header has no value.
    let constants = directives
        .into_iter()
        .filter(|line| line.starts_with("#define ") && line.split_whitespace().count() > 2);
    let mut found: BTreeSet<_> = constants.map(spaced).collect();
    let mut declaration = String::new();
    let mut depth = 0;
    for character in code.join("\n").chars() {
        declaration.push(character);
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => {
                found.insert(spaced(&declaration));
                declaration.clear();
            }
            _ => {}
        }
    }
    found
}

/// Puts one space between words and signs.
fn spaced(text: &str) -> String {
    let mut words = String::new();
    for character in text.chars() {
        if character.is_alphanumeric() || character == '_' || character.is_whitespace() {
            words.push(character);
        } else {
            words.extend([' ', character, ' ']);
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_header_declares_what_the_library_defines() {
    let header = fs::read_to_string(library_path().join("include/xen_contig.h")).unwrap();
    // A block for C++ compilers declares nothing.
    let header = header.replace("extern \"C\" {\n", "").replace("\n}\n#endif", "\n#endif");
    let (mut written, library) = (declarations(&header), declarations(&generated()));
    // The kernel defines this function, so only the static library declares it.
    assert!(written.remove("void xc_panic ( const char * message ) ;"));
    let source = fs::read_to_string(library_path().join("staticlib/src/lib.rs")).unwrap();
    assert!(source.contains("fn xc_panic(message: *const c_char) -> !;"));
    let missing: Vec<_> = library.difference(&written).collect();
    let surplus: Vec<_> = written.difference(&library).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "the library defines:\n{missing:#?}\nthe header declares:\n{surplus:#?}"
    );
    assert!(written.len() > 30, "the sets are not empty: {}", written.len());
}
