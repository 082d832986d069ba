//! `public/version.h` and `public/features.h`.

use super::assert_layout;

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FeatureInfo {
    /// The index of a group of 32 features, set by the caller.
    pub submap_idx: u32,
    /// One bit per feature, set by Xen.
    pub submap: u32,
}
assert_layout!(FeatureInfo, size 8, submap_idx @ 0, submap @ 4);
