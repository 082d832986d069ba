//! A hypercall and its arguments, as a tracer records them.

use x86_64::VirtAddr;

use super::Hypercall;
use crate::abi::memory::MemoryExchange;
use crate::ops::{
    EventChannelOp, GrantTableOp, HvmOp, HvmParamIndex, MemoryOp, MmuExtOp, MmuUpdate,
    MulticallEntry, PhysdevOp, Pte, SchedOp, SegmentBase, UvmFlags,
};
use crate::{Call, Mfn};

/// The number of entries of a multicall that a record names.
const ENTRIES: usize = 4;

/// A hypercall and its arguments, as a tracer records them: numbers, without text.
///
/// `Display` prints the name of the hypercall and its arguments by name, separated by spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the call, and each field the argument, of its name")]
pub enum CallRecord {
    Exchange(ExchangeRecord),
    /// An operation of `memory_op` with one list of extents.
    Reservation {
        name: &'static str,
        extents: u64,
        order: u32,
        flags: u32,
    },
    AddToPhysmap {
        space: u32,
        gfn: u64,
    },
    /// An operation of `memory_op` that returns a number or reports something.
    MemoryQuery {
        name: &'static str,
    },
    MmuUpdate {
        count: u64,
        first: Option<MmuUpdate>,
        last: Option<MmuUpdate>,
    },
    UpdateVaMapping {
        address: VirtAddr,
        pte: Pte,
        flush: UvmFlags,
    },
    MmuExt {
        count: u64,
        flushes: u32,
        first: Option<MmuExtOp>,
    },
    Multicall(MulticallRecord),
    ConsoleWrite {
        bytes: u64,
    },
    Sched(SchedOp),
    Suspend {
        start_info: Option<Mfn>,
    },
    EventChannel(EventChannelOp),
    GrantTable {
        name: &'static str,
        frames: u64,
    },
    Version {
        name: &'static str,
    },
    Vcpu {
        name: &'static str,
        vcpu: u32,
    },
    SetTrapTable {
        entries: u64,
    },
    SetCallbacks {
        event: VirtAddr,
        failsafe: VirtAddr,
    },
    SetSegmentBase(SegmentBase),
    Hvm(HvmOp),
    SetHvmParam {
        index: HvmParamIndex,
        value: u64,
    },
    Physdev(PhysdevOp),
}

impl CallRecord {
    /// Records a call that is about to be made.
    // Always inlined, as are all functions from a method of `Xen` to the one that issues a call: the
    // variant is a constant there, so that nothing remains of the `match`.
    #[inline(always)]
    pub fn of(call: &Call<'_>) -> Self {
        match call {
            Call::Memory(op) => Self::of_memory(op),
            Call::MmuUpdate { updates, .. } => Self::MmuUpdate {
                count: updates.len() as u64,
                first: updates.first().copied(),
                last: updates.last().copied(),
            },
            Call::UpdateVaMapping { address, pte, flush } => {
                Self::UpdateVaMapping { address: *address, pte: *pte, flush: *flush }
            }
            Call::MmuExt { ops, .. } => Self::MmuExt {
                count: ops.len() as u64,
                flushes: ops.iter().filter(|op| op.flushes()).count() as u32,
                first: ops.first().copied(),
            },
            Call::Multicall(entries) => Self::Multicall(MulticallRecord::of(entries)),
            Call::ConsoleWrite(bytes) => Self::ConsoleWrite { bytes: bytes.len() as u64 },
            Call::Sched(op) => Self::Sched(*op),
            Call::Suspend { start_info } => Self::Suspend { start_info: *start_info },
            Call::EventChannel(op) => Self::EventChannel(*op),
            Call::GrantTable(op) => {
                let GrantTableOp::SetupTable { frames, .. } = op;
                Self::GrantTable { name: op.command().1, frames: frames.len() as u64 }
            }
            Call::Version(op) => Self::Version { name: op.command().1 },
            Call::Vcpu { op, vcpu } => Self::Vcpu { name: op.command().1, vcpu: *vcpu },
            Call::SetTrapTable(table) => Self::SetTrapTable { entries: table.len() as u64 },
            Call::SetCallbacks { event, failsafe } => {
                Self::SetCallbacks { event: *event, failsafe: *failsafe }
            }
            Call::SetSegmentBase(base) => Self::SetSegmentBase(*base),
            Call::Hvm(op) => Self::Hvm(*op),
            Call::SetHvmParam { index, value } => {
                Self::SetHvmParam { index: *index, value: *value }
            }
            Call::Physdev(op) => Self::Physdev(*op),
        }
    }

    #[inline(always)]
    fn of_memory(op: &MemoryOp<'_>) -> Self {
        let (_, name) = op.command();
        match op {
            MemoryOp::Exchange(exchange) => Self::Exchange(ExchangeRecord::of(exchange)),
            MemoryOp::DecreaseReservation(list)
            | MemoryOp::IncreaseReservation(list)
            | MemoryOp::PopulatePhysmap(list) => Self::Reservation {
                name,
                extents: list.nr_extents,
                order: list.extent_order,
                flags: list.mem_flags,
            },
            MemoryOp::AddToPhysmap(place) => {
                Self::AddToPhysmap { space: place.space, gfn: place.gpfn }
            }
            _ => Self::MemoryQuery { name },
        }
    }

    /// Returns the hypercall.
    pub const fn hypercall(&self) -> Hypercall {
        match self {
            Self::Exchange(_)
            | Self::Reservation { .. }
            | Self::AddToPhysmap { .. }
            | Self::MemoryQuery { .. } => Hypercall::MemoryOp,
            Self::MmuUpdate { .. } => Hypercall::MmuUpdate,
            Self::UpdateVaMapping { .. } => Hypercall::UpdateVaMapping,
            Self::MmuExt { .. } => Hypercall::MmuExtOp,
            Self::Multicall(_) => Hypercall::Multicall,
            Self::ConsoleWrite { .. } => Hypercall::ConsoleIo,
            Self::Sched(_) | Self::Suspend { .. } => Hypercall::SchedOp,
            Self::EventChannel(_) => Hypercall::EventChannelOp,
            Self::GrantTable { .. } => Hypercall::GrantTableOp,
            Self::Version { .. } => Hypercall::XenVersion,
            Self::Vcpu { .. } => Hypercall::VcpuOp,
            Self::SetTrapTable { .. } => Hypercall::SetTrapTable,
            Self::SetCallbacks { .. } => Hypercall::SetCallbacks,
            Self::SetSegmentBase(_) => Hypercall::SetSegmentBase,
            Self::Hvm(_) | Self::SetHvmParam { .. } => Hypercall::HvmOp,
            Self::Physdev(_) => Hypercall::PhysdevOp,
        }
    }

    /// Returns the number of operations of the call that flush a TLB or one page of it, on any vCPU.
    pub const fn flushes(&self) -> u64 {
        match self {
            Self::MmuExt { flushes, .. } => *flushes as u64,
            Self::Multicall(multicall) => multicall.flushes as u64,
            Self::UpdateVaMapping { flush, .. } => flush.flushes() as u64,
            Self::Hvm(HvmOp::FlushTlbs) => 1,
            _ => 0,
        }
    }

    /// Returns true for `XENMEM_exchange`, as a call of its own or as an entry of a multicall.
    pub fn exchanges(&self) -> bool {
        match self {
            Self::Exchange(_) => true,
            Self::Multicall(multicall) => {
                multicall.hypercalls().any(|hypercall| hypercall == Hypercall::MemoryOp)
            }
            _ => false,
        }
    }
}

/// The arguments of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    /// The number of in-extents.
    pub input: u64,
    /// The order of each in-extent.
    pub in_order: u32,
    /// The number of out-extents.
    pub output: u64,
    /// The order of each out-extent.
    pub out_order: u32,
    /// `XENMEMF_*` of the out-extents.
    pub flags: u32,
    /// `nr_exchanged` before the call, normally 0.
    pub exchanged: u64,
}

impl ExchangeRecord {
    /// Reads the argument of an exchange.
    #[inline]
    pub(crate) const fn of(argument: &MemoryExchange) -> Self {
        let MemoryExchange { input, output, nr_exchanged } = argument;
        Self {
            input: input.nr_extents,
            in_order: input.extent_order,
            output: output.nr_extents,
            out_order: output.extent_order,
            flags: output.mem_flags,
            exchanged: *nr_exchanged,
        }
    }
}

/// The calls of a multicall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticallRecord {
    /// The number of entries.
    pub count: u32,
    /// The number of entries that flush a TLB, as far as the entries show.
    pub flushes: u32,
    /// A bit for the number of each hypercall among all entries.
    hypercalls: u64,
    entries: [EntryRecord; ENTRIES],
    /// The arguments of the exchange among the entries, if the tracer has read them.
    pub exchange: Option<ExchangeRecord>,
}

impl MulticallRecord {
    #[inline]
    fn of(batch: &[MulticallEntry]) -> Self {
        let mut entries = [EntryRecord::default(); ENTRIES];
        for (record, entry) in entries.iter_mut().zip(batch) {
            *record = EntryRecord { op: entry.op() as u16, count: entry.list_len(), command: None };
        }
        let (mut flushes, mut hypercalls) = (0, 0);
        for entry in batch {
            flushes += u32::from(entry.flushes());
            hypercalls |= 1_u64.checked_shl(entry.op()).unwrap_or(0);
        }
        Self { count: batch.len() as u32, flushes, hypercalls, entries, exchange: None }
    }

    /// Iterates over the hypercalls of all entries, each once.
    pub(crate) fn hypercalls(&self) -> impl Iterator<Item = Hypercall> {
        let numbers = (0..u64::from(u64::BITS)).filter(|number| self.hypercalls >> number & 1 == 1);
        numbers.filter_map(Hypercall::from_number)
    }

    /// Iterates over the first entries.
    pub fn entries(&self) -> impl Iterator<Item = &EntryRecord> {
        self.entries.iter().take(self.count as usize)
    }

    pub(crate) fn entries_mut(&mut self) -> &mut [EntryRecord; ENTRIES] {
        &mut self.entries
    }
}

/// One call of a multicall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryRecord {
    /// The number of the hypercall.
    pub op: u16,
    /// The length of the list of an `mmu_update` or `mmuext_op`.
    pub count: u32,
    /// The first command of an `mmuext_op`, if the tracer has read it.
    pub command: Option<u8>,
}
