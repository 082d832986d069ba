//! Writes the "newc" archives that Linux unpacks as its initramfs. The same entries give the
//! same bytes: times, owners and inode numbers are not the host's.

use std::collections::BTreeMap;
use std::io::Write;

use cpio::newc;

/// An archive in the making. Directories above an entry come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, ArchiveEntry>,
}

#[derive(Clone, Debug)]
struct ArchiveEntry {
    mode: u32,
    data: Vec<u8>,
}

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        self.parents(path);
        self.insert(path, DIRECTORY, Vec::new());
    }

    /// Adds a file. All are executable: it does no harm in a bed.
    pub fn file(&mut self, path: &str, data: impl Into<Vec<u8>>) {
        self.parents(path);
        self.insert(path, EXECUTABLE, data.into());
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.insert(path, SYMLINK, target.as_bytes().to_vec());
    }

    /// Returns true if there is an entry of this name.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    fn insert(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.entries.insert(path.to_owned(), ArchiveEntry { mode, data });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !self.contains(parent) {
                self.insert(parent, DIRECTORY, Vec::new());
            }
        }
    }

    /// The archive's bytes, padded so that another archive may follow.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let size = u32::try_from(entry.data.len()).expect("no file of a bed reaches 4 GiB");
            let mut writer = newc::Builder::new(path).ino(inode).mode(entry.mode).write(out, size);
            out = writer.write_all(&entry.data).and_then(|()| writer.finish()).expect(IN_MEMORY);
        }
        out = newc::trailer(out).expect(IN_MEMORY);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

const IN_MEMORY: &str = "a vector takes all bytes";

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_is_read_back() {
        let mut archive = Archive::default();
        archive.file("a/b", "hi");
        archive.symlink("lib", "usr/lib");
        let bytes = archive.bytes();
        assert_eq!(bytes.len() % 512, 0);
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            if reader.entry().is_trailer() {
                break;
            }
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            found.push((name, mode, text));
            rest = reader.finish().unwrap();
        }
        let entry = |name: &str, mode, text: &str| (name.to_owned(), mode, text.to_owned());
        assert_eq!(
            found,
            [
                entry("a", DIRECTORY, ""),
                entry("a/b", EXECUTABLE, "hi"),
                entry("lib", SYMLINK, "usr/lib")
            ]
        );
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let (mut one, mut two) = (Archive::default(), Archive::default());
        one.file("x/a", "1");
        one.symlink("lib", "usr/lib");
        two.symlink("lib", "usr/lib");
        two.file("x/a", "1");
        assert_eq!(one.bytes(), two.bytes());
    }
}
