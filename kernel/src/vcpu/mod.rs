//! Virtual CPUs: each with its own stack, trap state, event port, mailbox and trace.
//!
//! | question | place |
//! |---|---|
//! | which vCPU is this, and what belongs to it alone? | [`local`] |
//! | where do its stack and its data lie? | [`memory`] |
//! | how are the other ones started? | [`start`], `pv`, `pvh` |
//! | how does it get work, and what does it do without? | [`work`] |
//! | how do the others stand still for a panic? | [`stop`] |

mod local;
mod memory;
mod pv;
mod pvh;
mod start;
mod stop;
mod work;

use core::fmt;

pub use local::{Local, adopt_boot, local, online};
pub use start::{configured, start};
pub use stop::stop_others;
pub use work::{Undelivered, everywhere, run_on};

/// How many vCPUs the kernel runs on: those that have their `vcpu_info` in the shared page
/// (`XEN_LEGACY_MAX_VCPUS` in `public/arch-x86/xen.h`).
pub const MAX: u32 = 32;

/// Names a vCPU of this domain as Xen does: from 0, below [`MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VcpuId(u32);

impl VcpuId {
    /// The one that the domain starts with.
    pub const BOOT: Self = Self(0);

    /// The vCPU of that number; `None` from [`MAX`] on.
    pub const fn new(number: u32) -> Option<Self> {
        if number < MAX { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number, as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// The vCPU that runs this.
pub fn current() -> VcpuId {
    local().id
}

/// How many vCPUs are up.
pub fn count() -> usize {
    online().count()
}

/// How many notifications the vCPUs of this guest have sent each other so far. Each piece of work
/// costs one to start it, and the last to be done of a dispatch costs one; nothing else sends any.
pub fn notifications() -> u64 {
    online().map(|local| local.events.sent()).sum()
}
