//! A batch of calls whose per-entry results can't be ignored.

use core::fmt;
use core::marker::PhantomData;

use arrayvec::ArrayVec;
use x86_64::VirtAddr;

use crate::ops::{MmuExtOp, MmuUpdate, MulticallEntry, Pte, UvmFlags};
use crate::{DomId, Xen, XenErrno};

/// Up to `N` calls that cross into Xen at once.
///
/// Xen runs the entries in order and goes on behind one that failed, so every result counts;
/// [`issue`](Self::issue) is the only way to run the batch, and it looks at all of them.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is issued"]
pub struct Multicall<'a, const N: usize> {
    entries: ArrayVec<MulticallEntry, N>,
    lists: PhantomData<&'a ()>,
}

/// The first entry of a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticallError {
    /// Its place in the batch; `None` where Xen refused the batch as a whole.
    pub index: Option<usize>,
    /// How many entries failed.
    pub failed: usize,
    /// What Xen answered.
    pub errno: XenErrno,
}

impl fmt::Display for MulticallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => {
                write!(f, "multicall entry {index}: {} ({} failed)", self.errno, self.failed)
            }
            None => write!(f, "multicall: {}", self.errno),
        }
    }
}

impl core::error::Error for MulticallError {}

impl<'a, const N: usize> Multicall<'a, N> {
    /// An empty batch.
    pub const fn new() -> Self {
        Self { entries: ArrayVec::new_const(), lists: PhantomData }
    }

    /// Whether another entry finds no room.
    pub const fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    /// Adds an `update_va_mapping`.
    ///
    /// # Panics
    /// If the batch is full.
    pub fn update_va_mapping(&mut self, address: VirtAddr, pte: Pte, flush: UvmFlags) -> &mut Self {
        self.entries.push(MulticallEntry::update_va_mapping(address, pte, flush));
        self
    }

    /// Adds an `mmu_update` of the calling domain.
    ///
    /// # Panics
    /// If the batch is full.
    pub fn mmu_update(&mut self, updates: &'a [MmuUpdate]) -> &mut Self {
        self.entries.push(MulticallEntry::mmu_update(updates, DomId::SELF));
        self
    }

    /// Adds an `mmuext_op` of the calling domain.
    ///
    /// # Panics
    /// If the batch is full.
    pub fn mmuext_op(&mut self, ops: &'a [MmuExtOp]) -> &mut Self {
        self.entries.push(MulticallEntry::mmuext_op(ops, DomId::SELF));
        self
    }

    /// Runs the batch and empties it.
    ///
    /// # Safety
    /// As for the calls in it.
    ///
    /// # Errors
    /// The first entry that failed and how many did. The entries behind it have run.
    pub unsafe fn issue(&mut self, xen: &impl Xen) -> Result<(), MulticallError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        // SAFETY: the caller's; the lists live for 'a, which outlasts `self`.
        let whole = unsafe { xen.multicall(&mut self.entries) };
        let outcome = match whole {
            Err(errno) => Err(MulticallError { index: None, failed: self.entries.len(), errno }),
            Ok(_) => {
                let mut failures = self
                    .entries
                    .iter()
                    .enumerate()
                    .filter_map(|(index, entry)| Some((index, entry.result().err()?)));
                match failures.next() {
                    None => Ok(()),
                    Some((index, errno)) => Err(MulticallError {
                        index: Some(index),
                        failed: 1 + failures.count(),
                        errno,
                    }),
                }
            }
        };
        self.entries.clear();
        outcome
    }
}

impl<const N: usize> Default for Multicall<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}
