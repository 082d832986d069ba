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
    /// The number of frames of each in-extent of an exchange.
    in_order: Option<u32>,
}

impl ReceivedList {
    /// Returns the part of the list that Xen has written.
    pub fn received(&self, entry: &TraceEntry) -> Option<ExtentList> {
        let extents = match (self.in_order, &entry.call, entry.done, entry.result) {
            (None, _, _, Ok(extents)) => extents,
            (None, ..) => 0,
            (Some(_), CallRecord::Multicall(_), _, Ok(_)) if entry.failed.is_none() => {
                self.list.extents
            }
            // Without progress the number is what the caller set.
            (Some(in_order), CallRecord::Exchange(exchange), Some(done), _)
                if done > exchange.exchanged =>
            {
                done.checked_shl(in_order)? >> self.list.order.min(63)
            }
            _ => 0,
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
        let list = |reservation: &MemoryReservation| ExtentList {
            start: reservation.extent_start,
            extents: reservation.nr_extents,
            order: reservation.extent_order,
        };
        let written = |reservation| Some(ReceivedList { list: list(reservation), in_order: None });
        match call {
            Call::Memory(MemoryOp::Exchange(argument)) => Self::of_exchange(argument),
            Call::Memory(MemoryOp::DecreaseReservation(given)) => {
                Self { input: Some(list(given)), ..Self::default() }
            }
            Call::Memory(MemoryOp::IncreaseReservation(wanted)) => {
                Self { out: written(wanted), ..Self::default() }
            }
            Call::Memory(MemoryOp::PopulatePhysmap(wanted)) => {
                Self { at: Some(list(wanted)), out: written(wanted), ..Self::default() }
            }
            Call::Multicall(entries) => {
                let CallRecord::Multicall(multicall) = record else { return Self::default() };
                for (record, entry) in multicall.entries_mut().iter_mut().zip(entries.iter()) {
                    record.command = entry.mmuext_list().and_then(&read).map(|word| word as u8);
                }
                let argument = entries.iter().find_map(MulticallEntry::exchange_argument);
                let argument = argument.and_then(|argument| read_exchange(argument, read));
                multicall.exchange = argument.as_ref().map(ExchangeRecord::of);
                argument.as_ref().map(Self::of_exchange).unwrap_or_default()
            }
            _ => Self::default(),
        }
    }

    fn of_exchange(argument: &MemoryExchange) -> Self {
        let list = |reservation: &MemoryReservation| ExtentList {
            start: reservation.extent_start,
            extents: reservation.nr_extents,
            order: reservation.extent_order,
        };
        let out = list(&argument.output);
        let in_order = Some(argument.input.extent_order);
        Self {
            input: Some(list(&argument.input)),
            at: Some(out),
            out: Some(ReceivedList { list: out, in_order }),
        }
    }
}

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
        nr_exchanged: read(argument.wrapping_add(8))?,
    })
}
