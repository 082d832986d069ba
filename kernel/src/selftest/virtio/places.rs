//! The places where a driver's own buffers can lie.

use alloc::vec;
use core::slice;

use virtio_drivers::{BufferDirection, Hal};
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;

use super::watched_hal::Watched;
use super::{Check, TestOutcome, error, fail, skip};
use crate::drivers::memory::Kernel;
use crate::extent::ExtentRun;
use crate::layout::linear;
use crate::machine::ANYWHERE;
use crate::machine::Machine;

/// The place of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferPlace {
    /// On the stack, which lies in the image and not in the linear mapping.
    Stack,
    /// On the heap, which lies in the linear mapping.
    Heap,
    /// In memory that the `Hal` allocated: contiguous in the machine, and within reach.
    Coherent,
    /// PV: in two frames that are neighbours in the guest and not in the machine.
    Scattered,
}

/// The number of pages that a test gets at each place. `Scattered` has two.
///
/// It is a power of two. Otherwise the surplus of the extent would remain in the guest, within
/// reach of all devices.
const PAGES: usize = 4;

/// Calls `act` with memory at each place that this guest has.
pub fn each<S: StaticDevice<Platform = Kernel>>(
    machine: &Machine,
    mut act: impl FnMut(BufferPlace, &mut [u8]) -> Check,
) -> Check {
    act(BufferPlace::Stack, &mut [0; PAGES * PAGE_SIZE])?;
    act(BufferPlace::Heap, &mut vec![0; PAGES * PAGE_SIZE])?;
    coherent::<S>(|memory| act(BufferPlace::Coherent, memory))?;
    if machine.exchanger().is_some() {
        scattered(machine, |memory| act(BufferPlace::Scattered, memory))?;
    }
    Ok(())
}

fn coherent<S: StaticDevice<Platform = Kernel>>(act: impl FnOnce(&mut [u8]) -> Check) -> Check {
    let (dma, pointer) = Watched::<S>::dma_alloc(PAGES, BufferDirection::Both);
    if dma == 0 {
        skip!("guest or Xen has no memory for {PAGES} pages");
    }
    // SAFETY: the pages belong to this function ([M1](xen_contig::rules#M1)) until they are freed
    // below. The crate's driver takes its buffers as slices, so a slice is needed
    // ([M5](xen_contig::rules#M5)). No code accesses it while the device uses the pages.
    let done = act(unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), PAGES * PAGE_SIZE) });
    // SAFETY: the arguments are those of the allocation. The device is done with the pages, or was
    // reset.
    let freed = unsafe { Watched::<S>::dma_dealloc(dma, pointer, PAGES) };
    if freed != 0 {
        fail!("freeing {PAGES} pages at {dma:#x} failed: {freed}");
    }
    done
}

fn scattered(machine: &Machine, act: impl FnOnce(&mut [u8]) -> Check) -> Check {
    let Some(run) = machine.take(2) else { skip!("the guest has no run of 2 free frames") };
    let first = run.first();
    let mfn = |pfn| machine.p2m.mfn(pfn).map(Mfn::number);
    if mfn(first).map(|mfn| mfn + 1) != mfn(first.add(1)) {
        let done = act_on(first, act);
        machine.give(run);
        return done;
    }
    let (left, right) = run.split_at(1);
    // The first frame gets other memory. Its old memory was the only neighbour of the second frame.
    let done = exchange(machine, left).and_then(|moved| {
        let done = act_on(first, act);
        release(machine, moved).and(done)
    });
    machine.give(right);
    done
}

fn act_on(first: Pfn, act: impl FnOnce(&mut [u8]) -> Check) -> Check {
    // SAFETY: the two frames belong to the test ([M1](xen_contig::rules#M1)), and the linear
    // mapping maps them side by side. A driver's buffers are slices (see `coherent`). No code
    // accesses them while the device uses the pages ([M5](xen_contig::rules#M5)).
    act(unsafe { slice::from_raw_parts_mut(linear(first).as_mut_ptr(), 2 * PAGE_SIZE) })
}

fn exchange(machine: &Machine, run: FrameRun) -> Result<ExtentRun, TestOutcome> {
    let (exchanger, lists) = (machine.exchanger(), machine.lists(1));
    let (Some(exchanger), Some(mut lists)) = (exchanger, lists) else {
        error!(
            "the exchange needs a list and an exchanger; contiguous memory: {}",
            machine.capability
        )
    };
    match exchanger.acquire(run, ANYWHERE, lists.words()) {
        Ok(extent) => Ok(extent),
        Err(failure) => {
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            fail!("the exchange failed: {}", failure.error)
        }
    }
}

fn release(machine: &Machine, extent: ExtentRun) -> Check {
    let (exchanger, lists) = (machine.exchanger(), machine.lists(2));
    let (Some(exchanger), Some(mut lists)) = (exchanger, lists) else {
        error!(
            "the release needs lists and an exchanger; contiguous memory: {}",
            machine.capability
        )
    };
    match exchanger.release(extent, lists.words()) {
        Ok(run) => {
            machine.give(run);
            Ok(())
        }
        Err(failure) => {
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            fail!("the release failed: {}", failure.error)
        }
    }
}
