//! Which packages the bed is made of.

use crate::choice::XenVersion;

/// Packages of one Debian release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Tells the group from others of the same release.
    pub label: &'static str,
    /// The release's name.
    pub suite: &'static str,
    /// The packages.
    pub names: Vec<String>,
    /// A metapackage whose one dependency of this prefix is wanted as well: the kernel's
    /// package has its version in its name.
    pub resolve: Option<(&'static str, &'static str)>,
}

/// What `xl` and the daemons are linked against, directly or not. What is missing from this
/// list is found, and named, when the initramfs is made.
const LIBRARIES: [&str; 21] = [
    "libbz2-1.0",
    "libc6",
    "libfdt1",
    "libgcc-s1",
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
pub fn groups(xen: XenVersion) -> Vec<Group> {
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
            resolve: Some(("linux-image-amd64", "linux-image-")),
        },
        Group { label: xen.as_str(), suite: xen.suite(), names: tools, resolve: None },
    ]
}

impl Group {
    /// What is wanted, in one line.
    pub fn wanted(&self) -> String {
        let resolve = self.resolve.map_or("", |(name, _)| name);
        format!("{}: {resolve} {}\n", self.suite, self.names.join(" "))
    }
}

/// All that a bed wants, as one text, for a stamp.
pub fn wanted(xen: XenVersion) -> String {
    groups(xen).iter().map(Group::wanted).collect()
}
