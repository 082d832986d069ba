//! Which packages the bed is made of.

use crate::xen::Release;

/// Packages of one Debian release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Tells the group from others of the same release.
    pub label: &'static str,
    /// The release's name.
    pub suite: &'static str,
    /// The packages.
    pub names: Vec<String>,
    /// Packages with a version in their names, which the mirror's lists tell.
    pub versioned: &'static [VersionedPackage],
}

/// A package that is found by its place among the dependencies of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionedPackage {
    /// A package without a version in its name.
    pub metapackage: &'static str,
    /// The prefix of its dependency, the prefix of a dependency of that one, and so on.
    pub path: &'static [&'static str],
}

/// The kernel of the Linux dom0.
const LINUX: VersionedPackage =
    VersionedPackage { metapackage: "linux-image-amd64", path: &["linux-image-"] };

/// The same kernel, and what a module for it is built with.
const LINUX_AND_HEADERS: [VersionedPackage; 4] = [
    LINUX,
    VersionedPackage { metapackage: "linux-headers-amd64", path: &["linux-headers-"] },
    VersionedPackage {
        metapackage: "linux-headers-amd64",
        path: &["linux-headers-", "linux-headers-"],
    },
    VersionedPackage {
        metapackage: "linux-headers-amd64",
        path: &["linux-headers-", "linux-kbuild-"],
    },
];

/// What `xl` and the daemons are linked against, directly or not. What is missing from this
/// list is found, and named, when the initramfs is made.
///
/// No tool of these releases needs `libjson-c5`; those of Xen 4.23 and later do, from an installed
/// tree.
const LIBRARIES: [&str; 22] = [
    "libbz2-1.0",
    "libc6",
    "libfdt1",
    "libgcc-s1",
    "libjson-c5",
    "liblzma5",
    "liblzo2-2",
    "libncurses6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
];

/// The packages of a bed. Linux and busybox are Debian 12's in every bed: the kernel's
/// interface to the tools does not depend on the Xen release, and one download is enough.
pub fn groups(release: &Release) -> Vec<Group> {
    let xen = release.version;
    let mut tools: Vec<String> = LIBRARIES.into_iter().map(str::to_owned).collect();
    tools.extend(["libzstd1", "xen-utils-common", "zlib1g"].map(str::to_owned));
    tools.extend([
        format!("libxenmisc{xen}"),
        format!("xen-hypervisor-{xen}-amd64"),
        format!("xen-utils-{xen}"),
    ]);
    vec![
        Group {
            label: "linux",
            suite: "bookworm",
            names: vec!["busybox-static".to_owned()],
            versioned: &[LINUX],
        },
        Group { label: xen, suite: release.suite, names: tools, versioned: &[] },
    ]
}

/// Returns the packages of the Linux that `bench` compares with. They come from one reading of the
/// mirror's lists, so the headers are those of the kernel.
pub fn peer() -> Group {
    Group {
        label: "linux-peer",
        suite: "bookworm",
        names: vec!["busybox-static".to_owned()],
        versioned: &LINUX_AND_HEADERS,
    }
}

/// Returns the packages with the kernels that the suite boots as domUs besides the image.
pub fn others() -> Group {
    Group {
        label: "other-kernels",
        suite: "bookworm",
        names: vec!["busybox-static".to_owned(), "grub-xen-host".to_owned()],
        versioned: &[],
    }
}

impl Group {
    /// What is wanted, in one line.
    pub fn wanted(&self) -> String {
        let mut metapackages: Vec<&str> =
            self.versioned.iter().map(|package| package.metapackage).collect();
        metapackages.dedup();
        format!("{}: {} {}\n", self.suite, metapackages.join(" "), self.names.join(" "))
    }
}

/// All that a bed wants, as one text, for a stamp.
pub fn wanted(release: &Release) -> String {
    groups(release).iter().map(Group::wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_the_kernel_of_the_bed_with_its_headers() {
        let bed = groups(&Release::all()[0]);
        assert_eq!(bed[0].versioned[0], peer().versioned[0]);
        let wanted = peer().wanted();
        assert_eq!(wanted, "bookworm: linux-image-amd64 linux-headers-amd64 busybox-static\n");
    }
}
