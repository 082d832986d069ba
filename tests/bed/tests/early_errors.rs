//! Does the bed refuse a wrong file before it locks, fetches or makes anything?

use std::fs;
use std::process::Command;

/// Runs the bed in a directory that cannot be made, and returns its message.
fn error(words: &[&str]) -> String {
    let mut bed = Command::new(env!("CARGO_BIN_EXE_bed"));
    let out = bed.args(words).args(["--target", "/dev/null/bed"]).output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{words:?}");
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn a_wrong_file_is_named_before_the_bed_is_touched() {
    let text = std::env::temp_dir().join(format!("bed-early-{}", std::process::id()));
    fs::write(&text, "text").unwrap();
    let text = text.display().to_string();
    let config = format!("{text}.cfg");
    fs::write(&config, format!("kernel = \"{text}\"\n")).unwrap();
    for words in [
        &["guest", "--kernel", &text][..],
        &["guest", "--cfg", &config],
        &["gdb", "--kernel", &text],
        &["run", "--image", &text],
        &["setup", "--xen", &text],
        &["bench", "--compare", &text],
        &["bench", "--into", &text],
    ] {
        let said = error(words);
        assert!(said.contains(&format!("`{text}`")) && !said.contains("/dev/null"), "{said}");
    }
    assert!(error(&["guest"]).contains("KERNEL is not given"));
    assert!(error(&["gdb", "--mode", "all"]).contains("one mode"));
    assert!(error(&["setup"]).contains("/dev/null/bed"), "nothing else is wrong with this one");
    fs::remove_file(&text).unwrap();
    fs::remove_file(&config).unwrap();
}
