//! The text of a recorded call: its name, and its arguments by name.

use core::fmt;

use x86_64::structures::paging::PageTableFlags;

use super::record::{CallRecord, EntryRecord, ExchangeRecord, MulticallRecord};
use crate::ops::{
    EventChannelOp, HvmOp, MmuExtKind, MmuExtOp, MmuUpdate, MmuUpdateKind, PhysdevOp, Pte, SchedOp,
    SegmentBase, UvmFlags,
};
use crate::trace::Hypercall;

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hypercall().name())?;
        match *self {
            Self::Exchange(exchange) => write!(f, " exchange{exchange}"),
            Self::Reservation { name, extents, order, flags } => {
                write!(f, " {name} extents={extents} order={order}{}", Flags(flags))
            }
            Self::AddToPhysmap { space, gfn } => {
                write!(f, " add_to_physmap space={space} gfn={gfn:#x}")
            }
            Self::MemoryQuery { name } | Self::Version { name } => write!(f, " {name}"),
            Self::MmuUpdate { count, first, last } => {
                write!(f, " count={count}")?;
                match (first, last) {
                    (Some(first), Some(last)) => write!(f, "{}", Updates(first, last)),
                    _ => Ok(()),
                }
            }
            Self::UpdateVaMapping { address, pte, flush } => {
                let (pte, flush) = (Entry(pte), Flush(flush));
                write!(f, " va={:#x} pte={pte} flush={flush}", address.as_u64())
            }
            Self::MmuExt { count, first, .. } => {
                write!(f, " count={count}")?;
                first.map_or(Ok(()), |op| write!(f, " {}", Ext(op)))
            }
            Self::Multicall(multicall) => write!(f, "{multicall}"),
            Self::ConsoleWrite { bytes } => write!(f, " write bytes={bytes}"),
            Self::Sched(op) => write!(f, " {}", Sched(op)),
            Self::Suspend { start_info: None } => f.write_str(" suspend"),
            Self::Suspend { start_info: Some(mfn) } => write!(f, " suspend start_info={mfn}"),
            Self::EventChannel(op) => write!(f, " {}", Event(op)),
            Self::GrantTable { name, frames } => write!(f, " {name} frames={frames}"),
            Self::Vcpu { name, vcpu } => write!(f, " {name} vcpu={vcpu}"),
            Self::SetTrapTable { entries } => write!(f, " entries={entries}"),
            Self::SetCallbacks { event, failsafe } => {
                write!(f, " event={:#x} failsafe={:#x}", event.as_u64(), failsafe.as_u64())
            }
            Self::SetSegmentBase(SegmentBase::GsKernel(base)) => {
                write!(f, " gs_kernel base={:#x}", base.as_u64())
            }
            Self::Hvm(HvmOp::GetParam(index)) => write!(f, " get_param param={}", index as u32),
            Self::Hvm(HvmOp::FlushTlbs) => f.write_str(" flush_tlbs"),
            Self::Hvm(HvmOp::GetMemType(pfn)) => write!(f, " get_mem_type pfn={pfn}"),
            Self::SetHvmParam { index, value } => {
                write!(f, " set_param param={} value={value:#x}", index as u32)
            }
            Self::Physdev(op) => {
                write!(f, " {}", op.command().1)?;
                match op {
                    PhysdevOp::SetIopl(iopl) => write!(f, " iopl={iopl}"),
                    PhysdevOp::IrqStatusQuery { pirq } | PhysdevOp::Eoi { pirq } => {
                        write!(f, " pirq={pirq}")
                    }
                }
            }
        }
    }
}

impl fmt::Display for ExchangeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, in_order, output, out_order, flags, exchanged } = *self;
        write!(f, " in={input} in_order={in_order} out={output} out_order={out_order}")?;
        write!(f, "{}", Flags(flags))?;
        if exchanged > 0 { write!(f, " exchanged={exchanged}") } else { Ok(()) }
    }
}

impl fmt::Display for MulticallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " entries={}", self.count)?;
        let mut before = None;
        for entry @ EntryRecord { op, count, command } in self.entries().copied() {
            if before.replace(entry) == Some(entry) {
                continue;
            }
            match Hypercall::from_number(op.into()) {
                Some(Hypercall::MemoryOp) => {
                    f.write_str(" exchange")?;
                    self.exchange.map_or(Ok(()), |exchange| write!(f, "{exchange}"))?;
                }
                Some(hypercall @ Hypercall::MmuUpdate) => {
                    write!(f, " {}={count}", hypercall.name())?;
                }
                Some(hypercall @ Hypercall::MmuExtOp) => {
                    write!(f, " {}={count}", hypercall.name())?;
                    if let Some(command) = command {
                        f.write_str(":")?;
                        Ext(MmuExtOp::of(command.into(), 0)).write_name(f)?;
                    }
                }
                Some(hypercall) => write!(f, " {}", hypercall.name())?,
                None => write!(f, " op={op}")?,
            }
        }
        if self.entries().count() as u32 == self.count { Ok(()) } else { f.write_str(" …") }
    }
}

/// `XENMEMF_*`: address bits, node, and whether the node is exact.
struct Flags(u32);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXACT: u32 = 1 << 17;
        let Self(flags) = *self;
        let (bits, node, rest) = (flags & 0xff, flags >> 8 & 0xff, flags & !(0xffff | EXACT));
        write!(f, " bits={bits}")?;
        if node > 0 {
            let exactly = if flags & EXACT == 0 { "" } else { "exact_" };
            write!(f, " {exactly}node={}", node - 1)?;
        }
        if rest > 0 { write!(f, " flags={rest:#x}") } else { Ok(()) }
    }
}

/// A page-table entry: the frame, and the names of its flags.
struct Entry(Pte);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(PageTableFlags, &str); 8] = [
            (PageTableFlags::PRESENT, "P"),
            (PageTableFlags::WRITABLE, "W"),
            (PageTableFlags::USER_ACCESSIBLE, "U"),
            (PageTableFlags::ACCESSED, "A"),
            (PageTableFlags::DIRTY, "D"),
            (PageTableFlags::HUGE_PAGE, "PS"),
            (PageTableFlags::GLOBAL, "G"),
            (PageTableFlags::NO_EXECUTE, "NX"),
        ];
        let Self(pte) = *self;
        if pte == Pte::NOT_PRESENT {
            return f.write_str("0");
        }
        write!(f, "{}", pte.mfn())?;
        let mut rest = pte.flags();
        for (flag, name) in NAMES {
            if rest.contains(flag) {
                write!(f, "|{name}")?;
                rest.remove(flag);
            }
        }
        if rest.is_empty() { Ok(()) } else { write!(f, "|{:#x}", rest.bits()) }
    }
}

/// The flush of an `update_va_mapping`.
struct Flush(UvmFlags);

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(UvmFlags, &str); 3] =
            [(UvmFlags::TLB_FLUSH, "tlb"), (UvmFlags::INVLPG, "invlpg"), (UvmFlags::ALL, "all")];
        let Self(flush) = *self;
        if !flush.flushes() {
            return f.write_str("none");
        }
        let mut bar = "";
        for (_, name) in NAMES.into_iter().filter(|(flag, _)| flush.contains(*flag)) {
            write!(f, "{bar}{name}")?;
            bar = "|";
        }
        Ok(())
    }
}

/// The first and the last update of a list.
struct Updates(MmuUpdate, MmuUpdate);

impl fmt::Display for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use MmuUpdateKind::{MachineToPhys, PageTable};
        match (self.0.kind(), self.1.kind()) {
            (PageTable { entry, pte }, PageTable { entry: last_entry, pte: last }) => {
                write!(f, " entry={} pte=", Range(entry, last_entry))?;
                if pte.flags() != last.flags() {
                    return write!(f, "{}..{}", Entry(pte), Entry(last));
                }
                if pte.mfn() != last.mfn() {
                    write!(f, "{}..", pte.mfn())?;
                }
                write!(f, "{}", Entry(last))
            }
            (MachineToPhys { mfn, pfn }, MachineToPhys { mfn: last, pfn: last_pfn }) => {
                let mfns = Range(mfn.number(), last.number());
                write!(f, " m2p mfn={mfns} pfn={}", Range(pfn, last_pfn))
            }
            _ => f.write_str(" mixed"),
        }
    }
}

/// The first and the last value of a list.
struct Range(u64, u64);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 == self.1 {
            true => write!(f, "{:#x}", self.0),
            false => write!(f, "{:#x}..{:#x}", self.0, self.1),
        }
    }
}

/// One operation of `mmuext_op`.
struct Ext(MmuExtOp);

impl Ext {
    fn write_name(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0.kind() {
            MmuExtKind::PinTable { level, .. } => return write!(f, "pin_l{level}"),
            MmuExtKind::Other { cmd } => return write!(f, "cmd_{cmd}"),
            MmuExtKind::UnpinTable { .. } => "unpin",
            MmuExtKind::ClearPage { .. } => "clear_page",
            MmuExtKind::TlbFlushLocal => "tlb_flush_local",
            MmuExtKind::TlbFlushAll => "tlb_flush_all",
            MmuExtKind::InvlpgLocal { .. } => "invlpg_local",
            MmuExtKind::InvlpgAll { .. } => "invlpg_all",
        };
        f.write_str(name)
    }
}

impl fmt::Display for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_name(f)?;
        match self.0.kind() {
            MmuExtKind::PinTable { mfn, .. }
            | MmuExtKind::UnpinTable { mfn }
            | MmuExtKind::ClearPage { mfn } => write!(f, " mfn={mfn}"),
            MmuExtKind::InvlpgLocal { address } | MmuExtKind::InvlpgAll { address } => {
                write!(f, " va={address:#x}")
            }
            MmuExtKind::TlbFlushLocal | MmuExtKind::TlbFlushAll | MmuExtKind::Other { .. } => {
                Ok(())
            }
        }
    }
}

/// An operation of `sched_op`.
struct Sched(SchedOp);

impl fmt::Display for Sched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SchedOp::Yield => f.write_str("yield"),
            SchedOp::Block => f.write_str("block"),
            SchedOp::Poll { port, timeout } => {
                f.write_str("poll")?;
                port.map_or(Ok(()), |port| write!(f, " port={}", port.0))?;
                timeout.map_or(Ok(()), |until| write!(f, " until={until}"))
            }
            SchedOp::Shutdown(reason) => write!(f, "shutdown reason={}", reason as u32),
        }
    }
}

/// An operation of `event_channel_op`.
struct Event(EventChannelOp);

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            EventChannelOp::Send(port) => write!(f, "send port={}", port.0),
            EventChannelOp::Close(port) => write!(f, "close port={}", port.0),
            EventChannelOp::Unmask(port) => write!(f, "unmask port={}", port.0),
            EventChannelOp::BindVirq { virq, vcpu } => {
                write!(f, "bind_virq virq={virq} vcpu={vcpu}")
            }
            EventChannelOp::BindPirq { pirq, shared } => {
                let shared = if shared { " shared" } else { "" };
                write!(f, "bind_pirq pirq={pirq}{shared}")
            }
            EventChannelOp::BindIpi { vcpu } => write!(f, "bind_ipi vcpu={vcpu}"),
            EventChannelOp::AllocUnbound { remote } => {
                write!(f, "alloc_unbound remote={}", remote.0)
            }
        }
    }
}
