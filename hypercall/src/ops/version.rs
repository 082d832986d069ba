//! `HYPERVISOR_xen_version` (`public/version.h`).

use crate::abi::version::FeatureInfo;

/// A sub-operation of `xen_version`.
#[derive(Debug)]
#[non_exhaustive]
pub enum VersionOp<'a> {
    /// Returns `major << 16 | minor`.
    Version,
    /// Reports what follows the minor number, NUL-terminated.
    ExtraVersion(&'a mut [u8; 16]),
    /// Reports 32 feature bits (`public/features.h`).
    Features(&'a mut FeatureInfo),
}

impl VersionOp<'_> {
    /// The number `XENVER_*` and the name, as in the header.
    pub(crate) const fn command(&self) -> (u32, &'static str) {
        match self {
            Self::Version => (0, "version"),
            Self::ExtraVersion(_) => (1, "extraversion"),
            Self::Features(_) => (6, "get_features"),
        }
    }
}
