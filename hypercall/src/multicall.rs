//! A batch of hypercalls that checks every result.

use core::fmt;
use core::marker::PhantomData;

use arrayvec::ArrayVec;
use x86_64::VirtAddr;

use crate::ops::{MmuExtOp, MmuUpdate, MulticallEntry, Pte, UvmFlags};
use crate::{DomId, Xen, XenErrno};

/// A batch of up to `N` calls that enters Xen once.
///
/// Xen runs the entries in order and continues after one that failed, so every result matters.
/// [`issue`](Self::issue) checks all of them.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is issued"]
pub struct Multicall<'a, const N: usize> {
    entries: ArrayVec<MulticallEntry, N>,
    lists: PhantomData<&'a ()>,
}

/// Why a batch failed, by its first entry that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticallError {
    /// The index of the entry; `None` if Xen refused the batch as a whole.
    pub index: Option<usize>,
    /// The number of entries that failed.
    pub failed: usize,
    /// Xen's error.
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
    /// Makes an empty batch.
    pub const fn new() -> Self {
        Self { entries: ArrayVec::new_const(), lists: PhantomData }
    }

    /// Returns true if the batch holds `N` entries.
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

    /// Issues the batch and empties it. An empty batch makes no hypercall.
    ///
    /// # Safety
    /// The requirements of each call in the batch; see the methods of [`Xen`].
    ///
    /// # Errors
    /// The first entry that failed. Xen has run the entries after it, too.
    pub unsafe fn issue(&mut self, xen: &impl Xen) -> Result<(), MulticallError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        // SAFETY: the lists live for 'a, which outlasts `self`. The requirements of each call are this
        // function's own.
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
