//! Finds the shared libraries that programs need. `ldd` would run the programs, which may be of
//! another release than the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use elf::abi::DT_NEEDED;
use elf::endian::AnyEndian;
use elf::{ElfBytes, ParseError};

use crate::error::{Error, Result};

/// The directories that the dynamic loaders of Linux distributions search.
const PLACES: [&str; 8] = [
    "usr/local/lib",
    "usr/local/lib64",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "lib64",
    "usr/lib64",
    "lib",
    "usr/lib",
];

/// The C library, whose version decides whether a program runs.
const LIBC: &str = "libc.so.6";

/// The dynamic loader. It must be of the same build as the C library.
pub const LOADER: &str = "ld-linux-x86-64.so.2";

/// Loaded by name at run time, so that no ELF header names it: without it `xl` aborts when one of
/// its threads is cancelled.
const LOADED_AT_RUN_TIME: &str = "libgcc_s.so.1";

/// Libraries by name.
pub type Libraries = BTreeMap<String, PathBuf>;

/// Returns all libraries that `programs` need, directly or not, and the loader. Xen's own are under
/// `xen`. All others are of one of `systems`, the first that has all of them, because libraries of two
/// systems need not fit together.
pub fn closure(xen: &Path, systems: &[&Path], programs: &[PathBuf]) -> Result<Libraries> {
    let mut problems = Vec::new();
    for system in systems {
        match of_system(xen, system, programs)? {
            Ok(found) => return Ok(found),
            Err(problem) => problems.push(problem),
        }
    }
    Err(Error::Tools { root: xen.to_owned(), problem: problems.join("; ") })
}

/// Returns the libraries with those of `system`, or says what it lacks.
fn of_system(
    xen: &Path,
    system: &Path,
    programs: &[PathBuf],
) -> Result<std::result::Result<Libraries, String>> {
    let mut found = Libraries::new();
    let mut versions = BTreeSet::new();
    let mut queue = vec![("xl".to_owned(), LOADED_AT_RUN_TIME.to_owned())];
    queue.push(("xl".to_owned(), LOADER.to_owned()));
    let mut read = |path: &Path, queue: &mut Vec<_>| -> Result<()> {
        let file = Dynamic::read(path)?;
        versions.extend(file.requires);
        let of = path.display().to_string();
        queue.extend(file.needed.into_iter().map(|name| (of.clone(), name)));
        Ok(())
    };
    for program in programs {
        read(program, &mut queue)?;
    }
    while let Some((of, name)) = queue.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let Some(path) = locate(xen, &name).or_else(|| locate(system, &name)) else {
            let system = system.display();
            return Ok(Err(format!("`{of}` needs the library {name}, which `{system}` lacks")));
        };
        read(&path, &mut queue)?;
        found.insert(name, path);
    }
    let libc = found.get(LIBC).map(|path| Dynamic::read(path)).transpose()?;
    let defined = libc.map(|file| file.defines).unwrap_or_default();
    Ok(match versions.iter().find(|version| !defined.contains(*version)) {
        Some(version) => {
            Err(format!("they need {version}, which the C library of `{}` lacks", system.display()))
        }
        None => Ok(found),
    })
}

/// Returns the file of the library `name`.
fn locate(root: &Path, name: &str) -> Option<PathBuf> {
    let candidates = PLACES.iter().map(|place| root.join(place).join(name));
    candidates.into_iter().find_map(|path| fs::canonicalize(path).ok())
}

/// What a dynamic ELF file needs and offers.
#[derive(Default)]
struct Dynamic {
    /// Names of libraries.
    needed: Vec<String>,
    /// Versions of the C library's functions that the file uses, such as `GLIBC_2.34`.
    requires: BTreeSet<String>,
    /// Versions of functions that the file itself has.
    defines: BTreeSet<String>,
}

impl Dynamic {
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| Error::file("reading", path, e))?;
        Self::parse(&bytes)
            .map_err(|e| Error::file("reading the ELF file", path, io::Error::other(e)))
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, ParseError> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(bytes)?;
        let common = file.find_common_data()?;
        let mut all = Self::default();
        if let (Some(dynamic), Some(names)) = (common.dynamic, common.dynsyms_strs) {
            for entry in dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED) {
                all.needed.push(names.get(entry.d_val() as usize)?.to_owned());
            }
        }
        if let (Some(versions), Some(symbols)) = (file.symbol_version_table()?, common.dynsyms) {
            for symbol in 0..symbols.len() {
                if let Some(required) = versions.get_requirement(symbol)?
                    && required.file == LIBC
                {
                    all.requires.insert(required.name.to_owned());
                }
                for name in versions.get_definition(symbol)?.into_iter().flat_map(|it| it.names) {
                    all.defines.insert(name?.to_owned());
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_program() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn libraries_of_this_program_are_found_on_this_machine() {
        let found = closure(Path::new("/"), &[Path::new("/")], &[own_program()]).unwrap();
        assert!(found.contains_key(LIBC) && found.contains_key(LOADER), "{found:?}");
        let file = Dynamic::read(&own_program()).unwrap();
        assert!(file.needed.iter().any(|name| name == LIBC), "{:?}", file.needed);
        assert!(file.requires.iter().any(|name| name.starts_with("GLIBC_2.")));
    }

    #[test]
    fn a_system_that_lacks_a_library_is_passed_over() {
        let empty = Path::new("/nonexistent");
        let found = closure(empty, &[empty, Path::new("/")], &[own_program()]).unwrap();
        assert!(found[LIBC].is_absolute());
        let error = closure(empty, &[empty], &[own_program()]).unwrap_err().to_string();
        assert!(error.contains("needs the library") && error.contains("/nonexistent"), "{error}");
    }

    #[test]
    fn a_c_library_that_is_too_old_is_refused() {
        // A library that defines no version stands in for the old C library.
        let dir = std::env::temp_dir().join(format!("bed-libraries-{}", std::process::id()));
        fs::create_dir_all(dir.join("lib")).unwrap();
        let machine = closure(Path::new("/"), &[Path::new("/")], &[own_program()]).unwrap();
        for name in machine.keys() {
            let from = if name == LIBC { LOADED_AT_RUN_TIME } else { name };
            fs::copy(&machine[from], dir.join("lib").join(name)).unwrap();
        }
        let error = closure(&dir, &[&dir], &[own_program()]).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();
        assert!(error.contains("they need GLIBC_2."), "{error}");
    }
}
