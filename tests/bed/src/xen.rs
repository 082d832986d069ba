//! Which Xen is booted: a release that Debian packages, a hypervisor, or an installed tree.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::Crc;

use crate::error::Error;

/// The table of releases. `tests/bed/parameters.sh` reads it, too.
const RELEASES: &str = include_str!("../xen-releases");

/// A Xen release that Debian packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The release number, such as `4.17`.
    pub version: &'static str,
    /// The Debian release that has it.
    pub suite: &'static str,
}

impl Release {
    /// Returns all rows of the table, the oldest release first.
    pub fn all() -> Vec<Self> {
        let rows = RELEASES.lines().filter(|line| !line.starts_with('#'));
        rows.filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Self { version: words.next()?, suite: words.next()? })
        })
        .collect()
    }
}

/// A Xen that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xen {
    /// A release of Debian's, which the bed fetches.
    Release(Release),
    /// A hypervisor without tools. It boots dom0 modes only.
    Hypervisor(PathBuf),
    /// The root of an installed Xen, tools included, such as `make install DESTDIR=…` writes.
    Tree(PathBuf),
}

impl Xen {
    /// Returns all releases.
    pub fn releases() -> Vec<Self> {
        Release::all().into_iter().map(Self::Release).collect()
    }

    /// Returns the Xen of an ordinary run.
    pub fn default_release() -> Self {
        Self::Release(Release::all().remove(0))
    }

    /// Returns the name of the directory of this Xen under `target/bed/`.
    pub fn label(&self) -> String {
        match self {
            Self::Release(release) => release.version.to_owned(),
            Self::Hypervisor(path) | Self::Tree(path) => label_of(path),
        }
    }

    /// Returns the place in the order of a table: releases come first, in their own order.
    pub fn place(&self) -> usize {
        let releases = Self::releases();
        releases.iter().position(|xen| xen == self).unwrap_or(releases.len())
    }
}

/// The longest label, so that it is a file name and fits into a table.
const LONGEST_LABEL: usize = 60;

/// Returns a label for a path. Of a long path it has the end, after a checksum of all of it.
fn label_of(path: &Path) -> String {
    let words = path.iter().map(|word| word.to_string_lossy()).filter(|word| word != "/");
    let label = words.collect::<Vec<_>>().join("-").replace(|c: char| !is_plain(c), "_");
    if label.is_empty() {
        return "root-directory".to_owned();
    }
    if label.len() <= LONGEST_LABEL {
        return label;
    }
    let mut sum = Crc::new();
    sum.update(path.as_os_str().as_encoded_bytes());
    let sum = format!("{:08x}-", sum.sum());
    // Each character of the label is one byte.
    let end = &label[label.len() - (LONGEST_LABEL - sum.len())..];
    // Whole words, if one of them ends in the first half.
    let at = end[..end.len() / 2].find('-').map_or(0, |at| at + 1);
    sum + &end[at..]
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

impl FromStr for Xen {
    type Err = Error;

    /// Reads a release number or the path of something that exists.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(release) = Release::all().into_iter().find(|release| release.version == text) {
            return Ok(Self::Release(release));
        }
        let unknown = || Error::UnknownXen { given: text.to_owned(), releases: known() };
        let path = fs::canonicalize(text).map_err(|_| unknown())?;
        if !path.is_dir() {
            return Ok(Self::Hypervisor(path));
        }
        // A source tree in which Xen was built has what `make dist` installed.
        let installed = path.join("dist/install");
        Ok(Self::Tree(if installed.is_dir() { installed } else { path }))
    }
}

/// Returns the numbers of all releases for a message.
fn known() -> String {
    let versions: Vec<_> = Release::all().iter().map(|release| release.version).collect();
    versions.join(", ")
}

impl fmt::Display for Xen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.label())
    }
}

/// Returns the hypervisor of an installed tree: `boot/xen.gz`, or the only `boot/xen*.gz`.
pub fn hypervisor_in(tree: &Path) -> Result<PathBuf, Error> {
    let boot = tree.join("boot");
    let preferred = [boot.join("xen.gz"), boot.join("xen")];
    if let Some(path) = preferred.into_iter().find(|path| path.is_file()) {
        return Ok(path);
    }
    let entries = fs::read_dir(&boot).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_xen = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("xen-") && name.ends_with(".gz") && path.is_file()
    };
    let found: Vec<PathBuf> = entries.filter(is_xen).collect();
    match &found[..] {
        [only] => Ok(only.clone()),
        _ => Err(Error::NoHypervisor { tree: tree.to_owned(), found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_the_table() {
        let releases = Release::all();
        assert_eq!(releases[0], Release { version: "4.17", suite: "bookworm" });
        assert_eq!(Xen::default_release().label(), "4.17");
        assert!(releases.iter().all(|release| release.version.parse::<f32>().is_ok()));
        assert!(Xen::releases().iter().enumerate().all(|(place, xen)| xen.place() == place));
    }

    #[test]
    fn an_unknown_xen_is_named_with_what_exists() {
        let error = "4.18".parse::<Xen>().unwrap_err().to_string();
        assert!(error.contains("`4.18`") && error.contains("4.17, 4.20"), "{error}");
    }

    #[test]
    fn a_label_is_a_short_file_name() {
        let label = |path: &str| Xen::Tree(PathBuf::from(path)).label();
        assert_eq!(label("/home/a b/xen"), "home-a_b-xen");
        assert_eq!(label("/"), "root-directory");
        let long = |first: &str| label(&format!("/{first}/{}/dist/install", "xen/".repeat(80)));
        let (one, other) = (long("one"), long("other"));
        assert!(one.len() <= LONGEST_LABEL && one.ends_with("-xen-dist-install"), "{one}");
        assert_ne!(one, other, "the beginning of the path counts, too");
        let word = label(&format!("/{}", "ä".repeat(200)));
        assert_eq!(word.len(), LONGEST_LABEL);
    }

    #[test]
    fn a_path_is_a_hypervisor_or_a_tree() {
        let dir = std::env::temp_dir().join(format!("bed-xen-{}", std::process::id()));
        fs::create_dir_all(dir.join("boot")).unwrap();
        let dir = fs::canonicalize(dir).unwrap();
        let none = hypervisor_in(&dir).unwrap_err().to_string();
        assert!(none.contains("boot/xen.gz"), "{none}");
        let xen = dir.join("boot/xen-4.23-unstable.gz");
        fs::write(&xen, "x").unwrap();
        assert_eq!(hypervisor_in(&dir).unwrap(), xen);
        assert_eq!(dir.to_str().unwrap().parse::<Xen>().unwrap(), Xen::Tree(dir.clone()));
        let hypervisor: Xen = xen.to_str().unwrap().parse().unwrap();
        assert_eq!(hypervisor, Xen::Hypervisor(xen.clone()));
        assert!(hypervisor.label().ends_with("boot-xen-4.23-unstable.gz"));
        assert_eq!(hypervisor.place(), Release::all().len());
        fs::write(dir.join("boot/xen-4.22.gz"), "x").unwrap();
        let two = hypervisor_in(&dir).unwrap_err().to_string();
        assert!(two.contains("xen-4.22.gz"), "{two}");
        fs::create_dir_all(dir.join("dist/install")).unwrap();
        let tree: Xen = dir.to_str().unwrap().parse().unwrap();
        assert_eq!(tree, Xen::Tree(dir.join("dist/install")));
        fs::remove_dir_all(&dir).unwrap();
    }
}
