//! `public/version.h` and `public/features.h`.

use super::assert_layout;

/// `XENVER_version`: major in the high, minor in the low 16 bits of the result.
pub const XENVER_VERSION: u32 = 0;
/// `XENVER_extraversion`.
pub const XENVER_EXTRAVERSION: u32 = 1;
/// `XENVER_get_features`.
pub const XENVER_GET_FEATURES: u32 = 6;

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FeatureInfo {
    /// In: which 32 features.
    pub submap_idx: u32,
    /// Out: a bit each.
    pub submap: u32,
}
assert_layout!(FeatureInfo, size 8, submap_idx @ 0, submap @ 4);
