//! `SCHEDOP_shutdown` with `SHUTDOWN_suspend` (`public/sched.h`).

use crate::Mfn;
use crate::trace::{Arg, CallRecord, Hypercall};

/// How a domain continues after [`Xen::suspend`](crate::Xen::suspend).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// The toolstack built the domain anew, by a restore or at the end of a migration.
    Restored,
    /// The same domain continues: it was not saved, or saved and kept (`modify_returncode` of
    /// libxenguest).
    Cancelled,
}

impl Suspended {
    pub(crate) const fn of(answer: u64) -> Self {
        match answer {
            0 => Self::Restored,
            _ => Self::Cancelled,
        }
    }
}

pub(crate) fn describe(start_info: Option<Mfn>) -> CallRecord {
    let start_info = start_info.map(|mfn| Arg::Hex("start_info", mfn.number()));
    let args = [Some(Arg::Word("suspend")), start_info].into_iter().flatten();
    CallRecord::new(Hypercall::SchedOp, args)
}
