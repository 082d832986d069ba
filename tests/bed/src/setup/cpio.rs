//! Writes the "newc" archives that Linux unpacks as its initramfs. The same entries give the
//! same bytes: times, owners and inode numbers are not the host's.

use std::collections::BTreeMap;

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

    /// Whether there is an entry of this name.
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
            put(&mut out, inode, path, entry);
        }
        put(&mut out, 0, "TRAILER!!!", &ArchiveEntry { mode: 0, data: Vec::new() });
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn put(out: &mut Vec<u8>, inode: u32, path: &str, entry: &ArchiveEntry) {
    let size = u32::try_from(entry.data.len()).expect("no file of a bed reaches 4 GiB");
    let name_size = u32::try_from(path.len() + 1).expect("a path is short");
    out.extend_from_slice(b"070701");
    // inode, mode, uid, gid, links, time, size, device ×2, special device ×2, name, check
    for field in [inode, entry.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&entry.data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_newc() {
        let mut archive = Archive::default();
        archive.file("a/b", "hi");
        let bytes = archive.bytes();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8(bytes).unwrap();
        // The directory first, then the file with its size, then the trailer.
        assert!(text.starts_with("07070100000001000041ED"), "{text}");
        assert!(text.contains("0707010000000200008 1ED".replace(' ', "").as_str()), "{text}");
        assert!(text.contains("a/b\0") && text.contains("hi\0\0"));
        assert!(text.contains("TRAILER!!!"));
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
