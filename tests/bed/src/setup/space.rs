//! Looks for disk space before it runs out, and recognises when it did.

use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

/// Refuses to begin what can't be finished: `dir`'s disk must have `needed_mib` MiB free.
pub fn require(dir: &Path, needed_mib: u64) -> Result<()> {
    let free_mib = free_mib(dir)?;
    if free_mib < needed_mib {
        return Err(Error::DiskFull { path: dir.to_owned(), needed_mib, free_mib });
    }
    Ok(())
}

/// Turns another program's complaint about a full disk into the bed's own.
pub fn explain(error: Error, dir: &Path, needed_mib: u64) -> Error {
    match &error {
        Error::CommandFailed { output, .. } if output.contains("No space left on device") => {
            Error::DiskFull {
                path: dir.to_owned(),
                needed_mib,
                free_mib: free_mib(dir.parent().unwrap_or(dir)).unwrap_or(0),
            }
        }
        _ => error,
    }
}

fn free_mib(dir: &Path) -> Result<u64> {
    let text = command::succeed(Command::new("df").args(["--output=avail", "-B1M"]).arg(dir))?;
    let digits = text.lines().nth(1).map(str::trim).and_then(|line| line.parse().ok());
    // A file system that can't tell is given the benefit of the doubt.
    Ok(digits.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_refused_with_both_numbers() {
        let error = require(Path::new("/"), u64::MAX).unwrap_err().to_string();
        assert!(error.contains(&u64::MAX.to_string()) && error.contains("are free"), "{error}");
        require(Path::new("/"), 0).unwrap();
    }
}
