//! `HYPERVISOR_grant_table_op` (`public/grant_table.h`).

/// A sub-operation of `grant_table_op`.
#[derive(Debug)]
#[non_exhaustive]
pub enum GrantTableOp<'a> {
    /// Makes the caller's grant table have a number of frames, and reports which frames these are.
    ///
    /// The table starts empty, with entries of version 1
    /// ([`GrantEntry`](crate::abi::grant_table::GrantEntry)).
    SetupTable {
        /// Xen writes a frame to each element.
        frames: &'a mut [u64],
        /// `GNTST_*`: 0 if Xen wrote the frames, or a negative number.
        status: &'a mut i16,
    },
}

impl GrantTableOp<'_> {
    /// The number `GNTTABOP_*` and the name, as in the header.
    pub(crate) const fn command(&self) -> (u32, &'static str) {
        match self {
            Self::SetupTable { .. } => (2, "setup_table"),
        }
    }
}
