//! Finds the shared libraries that a program needs, in unpacked packages. `ldd` would run the
//! program, and the packages may be of another Debian release than the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

const PLACES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// All libraries that `programs` need, directly or not: name to file.
pub fn closure(root: &Path, programs: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut queue: Vec<(String, PathBuf)> =
        programs.iter().map(|path| (path.display().to_string(), path.clone())).collect();
    while let Some((of, path)) = queue.pop() {
        for name in needed(&path)? {
            if found.contains_key(&name) {
                continue;
            }
            let file = locate(root, &name).ok_or_else(|| Error::NotInPackages {
                what: format!("the library {name}, which {of} needs,"),
                root: root.to_owned(),
            })?;
            found.insert(name.clone(), file.clone());
            queue.push((name, file));
        }
    }
    Ok(found)
}

/// The file of the library `name`.
pub fn locate(root: &Path, name: &str) -> Option<PathBuf> {
    let candidates = PLACES.iter().map(|place| root.join(place).join(name));
    candidates.into_iter().find_map(|path| fs::canonicalize(path).ok())
}

fn needed(path: &Path) -> Result<Vec<String>> {
    let text = command::succeed(Command::new("readelf").arg("-dW").arg(path).env("LC_ALL", "C"))?;
    Ok(needed_in(&text))
}

fn needed_in(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readelf_s_lines_are_read() {
        let text = " 0x01 (NEEDED)  Shared library: [libc.so.6]\n 0x0e (SONAME) [x.so]\n";
        assert_eq!(needed_in(text), ["libc.so.6"]);
    }
}
