//! One process at a time uses a bed: two in one directory would overwrite each other's logs.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};
use crate::report::Reporter;
use crate::setup::make_dir;

/// Locks the bed in `target` while the result lives; waits for another process that holds it.
pub fn take(target: &Path, reporter: &mut Reporter) -> Result<File> {
    make_dir(target)?;
    let path = target.join("lock");
    let file = File::create(&path).map_err(|e| Error::file("making", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            reporter.say(&format!("waiting for another bed that uses {}", target.display()));
            file.lock().map_err(|e| Error::file("locking", &path, e))?;
        }
        Err(TryLockError::Error(e)) => return Err(Error::file("locking", &path, e)),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bed_is_had_by_one_at_a_time() {
        let dir = std::env::temp_dir().join(format!("bed-lock-{}", std::process::id()));
        let held = take(&dir, &mut Reporter::start()).unwrap();
        let second = File::open(dir.join("lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        second.try_lock().unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
