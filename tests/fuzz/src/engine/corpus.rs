//! The corpus: inputs in files, which are seeds, failures and inputs with new coverage.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Returns the directory of a target's inputs.
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Returns the inputs of a target and their paths, sorted by path.
///
/// Returns no inputs if the directory does not exist.
///
/// # Errors
/// If a file cannot be read.
pub fn load(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let directory = directory(target);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| entry.map(|it| it.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|input| (path, input))).collect()
}

/// Writes an input to a file, whose name is `kind` and a hash of the input.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(target: &str, kind: &str, input: &[u8]) -> io::Result<PathBuf> {
    let directory = directory(target);
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{kind}-{:016x}", hash(input)));
    fs::write(&path, input)?;
    Ok(path)
}

/// Removes the files whose names begin with `kind`.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove(target: &str, kind: &str) -> io::Result<()> {
    for (path, _) in load(target)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(kind) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Returns the FNV-1a hash of an input.
fn hash(input: &[u8]) -> u64 {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    input.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
