//! Options of an exchange that the kernel chooses.

use hypercall::Xen;
use hypercall::ops::VersionOp;

/// Options of an [`Exchanger`](super::Exchanger).
///
/// The default is right for every Xen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeOptions {
    /// Whether the first steps of a transaction share a hypercall.
    pub fuse: Fuse,
    /// Who fills frames with zeros that the guest gives up.
    pub scrub: Scrub,
}

/// Whether the clearing of entries, the flush and the first exchange share a multicall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fuse {
    /// One multicall makes all three. If Xen has no multicall, they are made one by one.
    #[default]
    On,
    /// Each of the three is a hypercall of its own, so that a trace shows it.
    Off,
}

/// Who fills frames with zeros, or overwrites them, before another domain gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scrub {
    /// The guest fills a run with zeros before it gives it up. Right for every Xen.
    #[default]
    ByGuest,
    /// Xen overwrites frames that the exchange takes, as it does from 4.17 on
    /// ([C57](crate::conformance#C57)).
    ByXen,
}

impl Scrub {
    /// Asks Xen for its version (`XENVER_version` of `public/version.h`), and returns who scrubs.
    ///
    /// An unknown version counts as one that does not scrub. Makes one hypercall, takes no lock and does
    /// not sleep. Ask at boot, and again after each migration, which may lead to an older Xen.
    pub fn ask(xen: &impl Xen) -> Self {
        /// 4.17, as Xen reports it: the major version in the upper half.
        const SCRUBS: u64 = 4 << 16 | 17;
        match xen.xen_version(VersionOp::Version) {
            Ok(version) if version >= SCRUBS => Self::ByXen,
            _ => Self::ByGuest,
        }
    }
}
