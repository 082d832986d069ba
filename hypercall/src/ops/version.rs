//! `HYPERVISOR_xen_version` (`public/version.h`).

use crate::abi::version::FeatureInfo;

/// A sub-operation of `xen_version`.
#[derive(Debug)]
pub enum VersionOp<'a> {
    /// Answers major << 16 | minor.
    Version,
    /// What follows the minor number, NUL-terminated.
    ExtraVersion(&'a mut [u8; 16]),
    /// 32 feature bits (`public/features.h`).
    Features(&'a mut FeatureInfo),
}
