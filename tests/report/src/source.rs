//! A file that an earlier run wrote, which may be missing or damaged.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a section of the page is drawn from.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Source<T> {
    /// The contents, and when they were written.
    Found {
        /// The contents.
        data: T,
        /// When the file was last written, in UTC.
        written: String,
    },
    /// No run has written the file.
    Absent {
        /// The path of the file.
        file: String,
    },
    /// The file is there but cannot be used.
    Damaged {
        /// The path of the file.
        file: String,
        /// Why it cannot be used.
        why: String,
    },
}

impl<T> Source<T> {
    /// Returns the contents, if they were found.
    pub fn data(&self) -> Option<&T> {
        match self {
            Self::Found { data, .. } => Some(data),
            _ => None,
        }
    }

    /// Converts the contents.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Source<U> {
        match self {
            Self::Found { data, written } => Source::Found { data: convert(data), written },
            Self::Absent { file } => Source::Absent { file },
            Self::Damaged { file, why } => Source::Damaged { file, why },
        }
    }
}

/// Reads a file of JSON below `root`. Fields that `T` does not have are ignored.
pub fn json<T: DeserializeOwned>(root: &Path, file: &str) -> Source<T> {
    let path = root.join(file);
    let damaged = |why: String| Source::Damaged { file: file.to_owned(), why };
    match fs::read_to_string(&path) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(data) => Source::Found { data, written: utc(modified(&path)) },
            Err(error) => damaged(error.to_string()),
        },
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Source::Absent { file: file.to_owned() }
        }
        Err(error) => damaged(error.to_string()),
    }
}

/// Returns when a file was last written; the epoch if the file system does not say.
pub fn modified(path: &Path) -> SystemTime {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified());
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns a time in the form `2026-11-26 11:03 UTC`.
pub fn utc(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let minutes = text.get(..16).unwrap_or(&text);
    format!("{} UTC", minutes.replace('T', " "))
}

/// Returns the names in a directory, sorted; none if it cannot be read.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_missing_file_and_a_damaged_one_are_told_apart() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(matches!(json::<u32>(root, "none.json"), Source::Absent { .. }));
        let Source::Damaged { file, why } = json::<u32>(root, "Cargo.toml") else { panic!() };
        assert_eq!(file, "Cargo.toml");
        assert!(why.contains("line 1"), "{why}");
    }

    #[test]
    fn times_are_in_utc_to_the_minute() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_691_017);
        assert_eq!(utc(time), "2026-11-26 11:03 UTC");
    }
}
