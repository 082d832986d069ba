//! The lists of frames of a call.

use super::record::{CallRecord, ExchangeRecord};
use super::{ExtentList, TraceEntry};
use crate::abi::memory::{MemoryExchange, MemoryReservation};
use crate::ops::{MemoryOp, MulticallEntry};
use crate::{Call, DomId};

/// The lists of a call that names frames.
#[derive(Default)]
pub(crate) struct Lists {
    pub input: Option<ExtentList>,
    pub at: Option<ExtentList>,
    pub out: Option<ReceivedList>,
}

/// A list that Xen writes.
pub(crate) struct ReceivedList {
    list: ExtentList,
    /// `None` if the result of the call is the number of extents.
    exchange: Option<Progress>,
}

/// How far an exchange got.
struct Progress {
    in_order: u32,
    /// `nr_exchanged` before the call. Xen advances it.
    before: u64,
    /// Its place, if the exchange is an entry of a multicall, which does not report it.
    place: Option<*const u64>,
}

impl ReceivedList {
    /// Returns the part of the list that Xen has written: all of it, or what an exchange that stopped
    /// midway did before, as a call of its own or in a multicall.
    pub fn received(
        &self,
        entry: &TraceEntry,
        read: impl Fn(*const u64) -> Option<u64>,
    ) -> Option<ExtentList> {
        let extents = match &self.exchange {
            None => entry.result.ok()?,
            Some(Progress { in_order, before, place }) => {
                let exchanged = place.map_or(entry.done, read);
                // Without progress the number is what the caller set.
                exchanged.filter(|exchanged| exchanged > before)?.checked_shl(*in_order)?
                    >> self.list.order.min(63)
            }
        };
        (extents > 0).then(|| ExtentList { extents: extents.min(self.list.extents), ..self.list })
    }
}

impl Lists {
    /// Finds the lists of a call. Adds to the record of a multicall what its entries point to.
    pub fn of(
        call: &Call<'_>,
        record: &mut CallRecord,
        read: impl Fn(*const u64) -> Option<u64>,
    ) -> Self {
        let written = |reservation: &MemoryReservation| {
            Some(ReceivedList { list: ExtentList::of(reservation), exchange: None })
        };
        match call {
            Call::Memory(MemoryOp::Exchange(argument)) => Self::of_exchange(argument, None),
            Call::Memory(MemoryOp::DecreaseReservation(given)) => {
                Self { input: Some(ExtentList::of(given)), ..Self::default() }
            }
            Call::Memory(MemoryOp::IncreaseReservation(wanted)) => {
                Self { out: written(wanted), ..Self::default() }
            }
            Call::Memory(MemoryOp::PopulatePhysmap(wanted)) => {
                Self { at: Some(ExtentList::of(wanted)), out: written(wanted), ..Self::default() }
            }
            Call::Multicall(entries) => {
                let CallRecord::Multicall(multicall) = record else { return Self::default() };
                for (record, entry) in multicall.entries_mut().iter_mut().zip(entries.iter()) {
                    record.command = entry.mmuext_list().and_then(&read).map(|word| word as u8);
                }
                let address = entries.iter().find_map(MulticallEntry::exchange_argument);
                let Some(address) = address else { return Self::default() };
                let Some(argument) = read_exchange(address, read) else { return Self::default() };
                multicall.exchange = Some(ExchangeRecord::of(&argument));
                Self::of_exchange(&argument, Some(address.wrapping_add(EXCHANGED)))
            }
            _ => Self::default(),
        }
    }

    fn of_exchange(argument: &MemoryExchange, place: Option<*const u64>) -> Self {
        let out = ExtentList::of(&argument.output);
        let (in_order, before) = (argument.input.extent_order, argument.nr_exchanged);
        let progress = Progress { in_order, before, place };
        Self {
            input: Some(ExtentList::of(&argument.input)),
            at: Some(out),
            out: Some(ReceivedList { list: out, exchange: Some(progress) }),
        }
    }
}

/// The word of `nr_exchanged` in the argument of an exchange.
const EXCHANGED: usize = 8;

/// Reads the argument of an exchange that an entry of a multicall points to.
fn read_exchange(
    argument: *const u64,
    read: impl Fn(*const u64) -> Option<u64>,
) -> Option<MemoryExchange> {
    let reservation = |first: usize| {
        let word = |index: usize| read(argument.wrapping_add(first + index));
        Some(MemoryReservation {
            extent_start: word(0)? as *mut u64,
            nr_extents: word(1)?,
            extent_order: word(2)? as u32,
            mem_flags: (word(2)? >> 32) as u32,
            domid: DomId(word(3)? as u16),
        })
    };
    Some(MemoryExchange {
        input: reservation(0)?,
        output: reservation(4)?,
        nr_exchanged: read(argument.wrapping_add(EXCHANGED))?,
    })
}
