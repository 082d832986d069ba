//! A run of frames that no page-table entry maps.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hypercall::Multicall;
use hypercall::ops::{Pte, UvmFlags};
use xen_contig::addr::{Mfn, Pfn};
use xen_contig::frames::FrameRun;

use crate::layout::{self, READ_WRITE};
use crate::machine::Machine;
use crate::vcpu::xen;

/// The number of page-table updates in one hypercall.
const BATCH: usize = 64;

/// A run without a mapping ([M2](xen_contig::rules#M2)). Dropping it leaks its frames, which stay
/// unmapped.
pub struct UnmappedRun<'m, 'l> {
    machine: &'m Machine,
    run: FrameRun,
    mfns: &'l mut [u64],
}

impl<'m, 'l> UnmappedRun<'m, 'l> {
    /// Takes a run with one frame for each word of `mfns`, and unmaps it.
    ///
    /// # Errors
    /// The guest has no such run, or Xen refused a page-table write.
    pub fn take(machine: &'m Machine, mfns: &'l mut [u64]) -> Result<Self, String> {
        let frames = mfns.len() as u64;
        if machine.p2m.is_translated() {
            return Err("a translated guest does not exchange".into());
        }
        let run = machine.take(frames);
        let run = run.ok_or_else(|| format!("the guest has no run of {frames} free frames"))?;
        for (mfn, pfn) in mfns.iter_mut().zip(run.iter()) {
            *mfn = machine.p2m.mfn(pfn).map_or(u64::MAX, Mfn::number);
        }
        write(run.iter().map(|pfn| (pfn, Pte::NOT_PRESENT)))?;
        Ok(Self { machine, run, mfns })
    }

    /// Returns the number of the first frame.
    pub const fn first(&self) -> u64 {
        self.run.first().number()
    }

    /// Returns the list of machine frames, one for each frame. [`map`](Self::map) maps these.
    pub const fn mfns(&mut self) -> &mut [u64] {
        self.mfns
    }

    /// Maps the run and frees it.
    ///
    /// # Errors
    /// Xen refused a page-table write.
    pub fn map(self) -> Result<(), String> {
        let Self { machine, run, mfns } = self;
        let entry = |(pfn, mfn): (Pfn, &u64)| (pfn, Pte::new(Mfn::new(*mfn), READ_WRITE));
        write(run.iter().zip(mfns.iter()).map(entry))?;
        let Some(table) = machine.p2m.table_address() else { return Ok(()) };
        for (pfn, mfn) in run.iter().zip(mfns.iter()) {
            // SAFETY: the table has an entry for each frame of the guest, and all accesses to it
            // are atomic. The entry belongs to the run ([M4](xen_contig::rules#M4)).
            let entry = unsafe { &*table.as_ptr::<AtomicU64>().add(pfn.number() as usize) };
            entry.store(*mfn, Relaxed);
        }
        machine.give(run);
        Ok(())
    }
}

/// Writes first-level entries of the linear mapping, each with its flush.
// It is not inlined, so that its batch is on the stack only while it runs.
#[inline(never)]
fn write(entries: impl Iterator<Item = (Pfn, Pte)>) -> Result<(), String> {
    let mut batch: Multicall<'_, BATCH> = Multicall::new();
    let issue = |batch: &mut Multicall<'_, BATCH>| {
        // SAFETY: the frames belong to a run that its caller owns, and contain no Rust objects
        // ([M1](xen_contig::rules#M1)).
        unsafe { batch.issue(xen()) }.map_err(|error| format!("linear mapping: {error}"))
    };
    for (pfn, pte) in entries {
        batch.update_va_mapping(layout::linear(pfn), pte, UvmFlags::INVLPG | UvmFlags::ALL);
        if batch.is_full() {
            issue(&mut batch)?;
        }
    }
    issue(&mut batch)
}
