//! Every hypercall that was made, in order.

use hypercall::XenErrno;
use hypercall::ops::MmuExtKind;

/// What a hypercall asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `mmu_update`.
    MmuUpdate {
        /// How many entries.
        updates: usize,
    },
    /// `update_va_mapping`.
    UpdateVaMapping {
        /// The address.
        address: u64,
        /// Whether a flush came with it.
        flush: bool,
    },
    /// `mmuext_op`.
    MmuExt(
        /// Its operations.
        Vec<MmuExtKind>,
    ),
    /// `multicall`; its entries follow as calls of their own.
    Multicall {
        /// How many entries.
        entries: usize,
    },
    /// `XENMEM_exchange`.
    Exchange {
        /// Number and order of the extents given up.
        input: (u64, u32),
        /// Number and order of the extents wanted.
        output: (u64, u32),
        /// Address bits.
        bits: u32,
    },
    /// `XENMEM_decrease_reservation`.
    Decrease {
        /// Number and order of the extents.
        extents: (u64, u32),
    },
    /// `XENMEM_populate_physmap` or `XENMEM_increase_reservation`.
    Populate {
        /// Number and order of the extents.
        extents: (u64, u32),
        /// Address bits.
        bits: u32,
    },
    /// `EVTCHNOP_send`: how a guest interrupts its other vCPUs.
    Send,
    /// Any other, by name.
    Other(
        /// The name.
        &'static str,
    ),
}

impl Asked {
    /// Whether the call flushes a TLB.
    pub fn flushes(&self) -> bool {
        match self {
            Self::UpdateVaMapping { flush, .. } => *flush,
            Self::MmuExt(ops) => ops.iter().any(|op| {
                matches!(
                    op,
                    MmuExtKind::TlbFlushLocal
                        | MmuExtKind::TlbFlushAll
                        | MmuExtKind::InvlpgAll { .. }
                        | MmuExtKind::InvlpgLocal { .. }
                )
            }),
            _ => false,
        }
    }

    /// Whether it is an exchange that moves frames, not one that asks for the order limit.
    pub const fn is_exchange(&self) -> bool {
        matches!(self, Self::Exchange { input: (1.., _), .. })
    }
}

/// A hypercall that came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Who made it.
    pub vcpu: u32,
    /// What it asked for.
    pub asked: Asked,
    /// What the model answered.
    pub answer: Result<u64, XenErrno>,
}

/// The calls so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub calls: Vec<Logged>,
}
