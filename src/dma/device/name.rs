//! How a device is called.

use core::fmt;

/// The name of a device, with that of its parent: `nic/queue-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceName {
    parent: Option<&'static str>,
    own: &'static str,
}

impl DeviceName {
    pub(super) const fn new(own: &'static str) -> Self {
        Self { parent: None, own }
    }

    pub(super) const fn child(self, own: &'static str) -> Self {
        Self { parent: Some(self.own), own }
    }

    /// Returns the name of the device it is a part of.
    pub const fn parent(&self) -> Option<&'static str> {
        self.parent
    }

    /// Returns the name without that of the parent.
    pub const fn own(&self) -> &'static str {
        self.own
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}/")?;
        }
        f.write_str(self.own)
    }
}
