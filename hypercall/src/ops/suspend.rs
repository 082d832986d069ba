//! `SCHEDOP_shutdown` with `SHUTDOWN_suspend` (`public/sched.h`).

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
