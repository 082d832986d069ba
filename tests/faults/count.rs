//! Writes how many fault cases a sweep tried to files, which `make test` adds up.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many sweeps of this test program have written their number.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Writes the number of cases of a sweep to a file of its own.
pub fn count(name: &str, cases: u64) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault-cases");
    let file = format!("{}-{}", env!("CARGO_CRATE_NAME"), WRITTEN.fetch_add(1, Relaxed));
    let line = format!("{cases} {name}\n");
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(file), line));
    written.expect("cargo's directory for files of tests is writable");
}
