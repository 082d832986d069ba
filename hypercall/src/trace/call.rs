//! A hypercall and its arguments, decoded for people.

use core::fmt;

use arrayvec::ArrayVec;
use x86_64::VirtAddr;

use crate::abi::memory::MemoryReservation;
use crate::ops::{
    EventChannelOp, HvmOp, MemoryOp, MmuExtKind, MmuExtOp, MmuUpdate, MmuUpdateKind,
    MulticallEntry, PhysdevOp, Pte, SchedOp, SegmentBase, UvmFlags, VcpuOp, VersionOp,
};

/// A hypercall of the [`Xen`](crate::Xen) seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the hypercall of its name in public/xen.h")]
pub enum Hypercall {
    MemoryOp,
    MmuUpdate,
    UpdateVaMapping,
    MmuExtOp,
    Multicall,
    ConsoleIo,
    SchedOp,
    EventChannelOp,
    XenVersion,
    VcpuOp,
    SetTrapTable,
    HvmOp,
    PhysdevOp,
    SetCallbacks,
    SetSegmentBase,
}

impl Hypercall {
    /// How many there are.
    pub const COUNT: usize = Self::NAMES.len();

    const NAMES: [&'static str; 15] = [
        "memory_op",
        "mmu_update",
        "update_va_mapping",
        "mmuext_op",
        "multicall",
        "console_io",
        "sched_op",
        "event_channel_op",
        "xen_version",
        "vcpu_op",
        "set_trap_table",
        "hvm_op",
        "physdev_op",
        "set_callbacks",
        "set_segment_base",
    ];

    /// The name in `public/xen.h`, without `__HYPERVISOR_`.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn name_at(index: usize) -> &'static str {
        Self::NAMES[index]
    }
}

/// A decoded argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A count, an order, a width.
    Number(&'static str, u64),
    /// A frame, an address, an entry.
    Hex(&'static str, u64),
    /// A word that speaks for itself.
    Word(&'static str),
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Number(name, value) => write!(f, "{name}={value}"),
            Self::Hex(name, value) => write!(f, "{name}={value:#x}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// A hypercall with its arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub hypercall: Hypercall,
    /// How many operations it carries.
    pub sub_operations: u32,
    /// How many of them flush a TLB, wholly or a page, of whichever vCPU.
    pub flushes: u32,
    args: ArrayVec<Arg, 8>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hypercall.name())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl Call {
    fn new(
        hypercall: Hypercall,
        sub_operations: usize,
        args: impl IntoIterator<Item = Arg>,
    ) -> Self {
        let sub_operations = u32::try_from(sub_operations).unwrap_or(u32::MAX);
        let args = args.into_iter().take(8).collect();
        Self { hypercall, sub_operations, flushes: 0, args }
    }

    fn flushing(self, flushes: usize) -> Self {
        Self { flushes: u32::try_from(flushes).unwrap_or(u32::MAX), ..self }
    }

    /// The decoded arguments.
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    pub(crate) fn memory(op: &MemoryOp<'_>) -> Self {
        let reservation = |word, r: &MemoryReservation| {
            Self::new(
                Hypercall::MemoryOp,
                r.nr_extents as usize,
                [
                    Arg::Word(word),
                    Arg::Number("extents", r.nr_extents),
                    Arg::Number("order", r.extent_order.into()),
                    Arg::Hex("flags", r.mem_flags.into()),
                ],
            )
        };
        let plain = |word| Self::new(Hypercall::MemoryOp, 1, [Arg::Word(word)]);
        match op {
            MemoryOp::Exchange(x) => Self::new(
                Hypercall::MemoryOp,
                x.input.nr_extents as usize,
                [
                    Arg::Word("exchange"),
                    Arg::Number("in", x.input.nr_extents),
                    Arg::Number("in_order", x.input.extent_order.into()),
                    Arg::Number("out", x.output.nr_extents),
                    Arg::Number("out_order", x.output.extent_order.into()),
                    Arg::Number("bits", (x.output.mem_flags & 0xff).into()),
                    Arg::Number("exchanged", x.nr_exchanged),
                ],
            ),
            MemoryOp::DecreaseReservation(r) => reservation("decrease_reservation", r),
            MemoryOp::IncreaseReservation(r) => reservation("increase_reservation", r),
            MemoryOp::PopulatePhysmap(r) => reservation("populate_physmap", r),
            MemoryOp::CurrentReservation(_) => plain("current_reservation"),
            MemoryOp::MaximumReservation(_) => plain("maximum_reservation"),
            MemoryOp::MaximumRamPage => plain("maximum_ram_page"),
            MemoryOp::MachphysMapping(_) => plain("machphys_mapping"),
            MemoryOp::MemoryMap(_) => plain("memory_map"),
            MemoryOp::AddToPhysmap(arg) => Self::new(
                Hypercall::MemoryOp,
                1,
                [
                    Arg::Word("add_to_physmap"),
                    Arg::Number("space", arg.space.into()),
                    Arg::Hex("gfn", arg.gpfn),
                ],
            ),
        }
    }

    pub(crate) fn mmu_update(updates: &[MmuUpdate]) -> Self {
        let first = updates.first().map(|update| update.kind());
        let args: ArrayVec<Arg, 3> = match first {
            Some(MmuUpdateKind::PageTable { entry, pte }) => {
                [Arg::Word("page_table"), Arg::Hex("entry", entry), Arg::Hex("pte", pte.raw())]
                    .into()
            }
            Some(MmuUpdateKind::MachineToPhys { mfn, pfn }) => {
                [Arg::Word("m2p"), Arg::Hex("mfn", mfn.number()), Arg::Hex("pfn", pfn)].into()
            }
            Some(MmuUpdateKind::Other) | None => ArrayVec::new(),
        };
        let count = Arg::Number("count", updates.len() as u64);
        Self::new(Hypercall::MmuUpdate, updates.len(), [count].into_iter().chain(args))
    }

    pub(crate) fn update_va_mapping(address: VirtAddr, pte: Pte, flush: UvmFlags) -> Self {
        Self::new(
            Hypercall::UpdateVaMapping,
            1,
            [
                Arg::Hex("va", address.as_u64()),
                Arg::Hex("pte", pte.raw()),
                Arg::Hex("flush", flush.bits()),
            ],
        )
        .flushing(flush.flushes().into())
    }

    pub(crate) fn mmuext_op(ops: &[MmuExtOp]) -> Self {
        let args: ArrayVec<Arg, 2> = match ops.first().map(|op| op.kind()) {
            Some(MmuExtKind::PinTable { level, mfn }) => {
                const PINS: [&str; 4] = ["pin_l1", "pin_l2", "pin_l3", "pin_l4"];
                let word = PINS.get(usize::from(level) - 1).copied().unwrap_or("pin");
                [Arg::Word(word), Arg::Hex("mfn", mfn.number())].into()
            }
            Some(MmuExtKind::UnpinTable { mfn }) => {
                [Arg::Word("unpin"), Arg::Hex("mfn", mfn.number())].into()
            }
            Some(MmuExtKind::ClearPage { mfn }) => {
                [Arg::Word("clear_page"), Arg::Hex("mfn", mfn.number())].into()
            }
            Some(MmuExtKind::TlbFlushLocal) => [Arg::Word("tlb_flush_local")].into_iter().collect(),
            Some(MmuExtKind::TlbFlushAll) => [Arg::Word("tlb_flush_all")].into_iter().collect(),
            Some(MmuExtKind::InvlpgLocal { address }) => {
                [Arg::Word("invlpg_local"), Arg::Hex("va", address)].into()
            }
            Some(MmuExtKind::InvlpgAll { address }) => {
                [Arg::Word("invlpg_all"), Arg::Hex("va", address)].into()
            }
            Some(MmuExtKind::Other { cmd }) => {
                [Arg::Number("cmd", cmd.into())].into_iter().collect()
            }
            None => ArrayVec::new(),
        };
        let count = Arg::Number("count", ops.len() as u64);
        let flushes = ops.iter().filter(|op| op.flushes()).count();
        Self::new(Hypercall::MmuExtOp, ops.len(), [count].into_iter().chain(args)).flushing(flushes)
    }

    pub(crate) fn multicall(entries: &[MulticallEntry]) -> Self {
        Self::new(
            Hypercall::Multicall,
            entries.len(),
            [
                Arg::Number("count", entries.len() as u64),
                Arg::Number("first_op", entries.first().map_or(0, |entry| entry.op().into())),
            ],
        )
        .flushing(entries.iter().filter(|entry| entry.flushes()).count())
    }

    pub(crate) fn console_write(bytes: &[u8]) -> Self {
        Self::new(
            Hypercall::ConsoleIo,
            1,
            [Arg::Word("write"), Arg::Number("bytes", bytes.len() as u64)],
        )
    }

    pub(crate) fn sched_op(op: SchedOp) -> Self {
        let word = match op {
            SchedOp::Yield => "yield",
            SchedOp::Block => "block",
            SchedOp::Poll { .. } => "poll",
            SchedOp::Shutdown(_) => "shutdown",
            SchedOp::Suspend { .. } => "suspend",
        };
        let reason = match op {
            SchedOp::Shutdown(reason) => Some(Arg::Number("reason", reason as u64)),
            SchedOp::Suspend { start_info } => {
                start_info.map(|mfn| Arg::Hex("start_info", mfn.number()))
            }
            _ => None,
        };
        Self::new(Hypercall::SchedOp, 1, [Some(Arg::Word(word)), reason].into_iter().flatten())
    }

    pub(crate) fn event_channel_op(op: EventChannelOp) -> Self {
        let (word, name, value) = match op {
            EventChannelOp::Send(port) => ("send", "port", port.0),
            EventChannelOp::Close(port) => ("close", "port", port.0),
            EventChannelOp::Unmask(port) => ("unmask", "port", port.0),
            EventChannelOp::BindVirq { virq, .. } => ("bind_virq", "virq", virq),
            EventChannelOp::BindIpi { vcpu } => ("bind_ipi", "vcpu", vcpu),
            EventChannelOp::AllocUnbound { remote } => ("alloc_unbound", "remote", remote.0.into()),
        };
        Self::new(Hypercall::EventChannelOp, 1, [Arg::Word(word), Arg::Number(name, value.into())])
    }

    pub(crate) fn xen_version(op: &VersionOp<'_>) -> Self {
        let word = match op {
            VersionOp::Version => "version",
            VersionOp::ExtraVersion(_) => "extraversion",
            VersionOp::Features(_) => "get_features",
        };
        Self::new(Hypercall::XenVersion, 1, [Arg::Word(word)])
    }

    pub(crate) fn vcpu_op(op: &VcpuOp<'_>, vcpu: u32) -> Self {
        let word = match op {
            VcpuOp::Initialise(_) | VcpuOp::InitialiseHvm(_) => "initialise",
            VcpuOp::Up => "up",
            VcpuOp::Down => "down",
            VcpuOp::IsUp => "is_up",
            VcpuOp::GetRunstateInfo(_) => "get_runstate_info",
            VcpuOp::RegisterVcpuInfo(_) => "register_vcpu_info",
        };
        Self::new(Hypercall::VcpuOp, 1, [Arg::Word(word), Arg::Number("vcpu", vcpu.into())])
    }

    pub(crate) fn set_trap_table(entries: usize) -> Self {
        Self::new(Hypercall::SetTrapTable, entries, [Arg::Number("entries", entries as u64)])
    }

    pub(crate) fn hvm_op(op: HvmOp) -> Self {
        let (word, index) = match op {
            HvmOp::GetParam(index) => ("get_param", index),
            HvmOp::SetParam(index, _) => ("set_param", index),
            HvmOp::FlushTlbs => {
                return Self::new(Hypercall::HvmOp, 1, [Arg::Word("flush_tlbs")]).flushing(1);
            }
        };
        Self::new(Hypercall::HvmOp, 1, [Arg::Word(word), Arg::Number("param", index as u64)])
    }

    pub(crate) fn set_callbacks(event: VirtAddr, failsafe: VirtAddr) -> Self {
        let args = [Arg::Hex("event", event.as_u64()), Arg::Hex("failsafe", failsafe.as_u64())];
        Self::new(Hypercall::SetCallbacks, 1, args)
    }

    pub(crate) fn set_segment_base(base: SegmentBase) -> Self {
        let SegmentBase::GsKernel(base) = base;
        let args = [Arg::Word("gs_kernel"), Arg::Hex("base", base.as_u64())];
        Self::new(Hypercall::SetSegmentBase, 1, args)
    }

    pub(crate) fn physdev_op(op: PhysdevOp) -> Self {
        let PhysdevOp::SetIopl(iopl) = op;
        let args = [Arg::Word("set_iopl"), Arg::Number("iopl", iopl.into())];
        Self::new(Hypercall::PhysdevOp, 1, args)
    }
}
