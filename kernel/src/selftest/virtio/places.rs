//! Where a driver's own buffers may lie.

use alloc::vec;
use core::slice;

use virtio_drivers::{BufferDirection, Hal};
use xen_contig::adapters::virtio_drivers::StaticDevice;
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::frames::FrameRun;

use super::watch::Watched;
use super::{Check, TestOutcome, error, fail, skip};
use crate::extent::ExtentRun;
use crate::layout::linear;
use crate::machine::ANYWHERE;
use crate::machine::Machine;
use crate::virtio::Kernel;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferPlace {
    /// On the stack, which is in the image: the linear mapping is elsewhere.
    Stack,
    /// On the heap, which is in the linear mapping.
    Heap,
    /// In memory that the `Hal` gave out: next to each other in the machine, and within reach.
    Coherent,
    /// In two guest frames that are neighbours for the guest alone. PV.
    Scattered,
}

/// Pages that a test gets at each place; of the last kind there are two. A power of two: of a larger
/// extent, the rest would stay the guest's, within the reach of all devices.
const PAGES: usize = 4;

/// Calls `act` with memory at each place that there is.
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
        skip!("there is no memory for {PAGES} pages");
    }
    // SAFETY: the pages are ours ([M1](xen_contig::rules#M1)) until they are freed below. A driver
    // of that crate takes its buffers as slices, so it has to be one ([M5](xen_contig::rules#M5));
    // the device has them while nobody else looks.
    let done = act(unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), PAGES * PAGE_SIZE) });
    // SAFETY: as it was allocated; the device is done with it, or was reset.
    let freed = unsafe { Watched::<S>::dma_dealloc(dma, pointer, PAGES) };
    if freed != 0 {
        fail!("{PAGES} pages at {dma:#x} can't be freed: {freed}");
    }
    done
}

fn scattered(machine: &Machine, act: impl FnOnce(&mut [u8]) -> Check) -> Check {
    let Some(run) = machine.take(2) else { skip!("the guest has no 2 free frames in a row") };
    let first = run.first();
    let mfn = |pfn| machine.p2m.mfn(pfn).map(Mfn::number);
    if mfn(first).map(|mfn| mfn + 1) != mfn(first.add(1)) {
        let done = act_on(first, act);
        machine.give(run);
        return done;
    }
    let (left, right) = run.split_at(1);
    // The first gets other memory than it had, which was the only neighbour of the second's.
    let done = exchange(machine, left).and_then(|moved| {
        let done = act_on(first, act);
        give_back(machine, moved).and(done)
    });
    machine.give(right);
    done
}

fn act_on(first: Pfn, act: impl FnOnce(&mut [u8]) -> Check) -> Check {
    // SAFETY: two frames of the test's ([M1](xen_contig::rules#M1)), mapped side by side, and
    // ordinary memory. A driver's buffers are slices (see `coherent`); the device has them while
    // nobody else looks ([M5](xen_contig::rules#M5)).
    act(unsafe { slice::from_raw_parts_mut(linear(first).as_mut_ptr(), 2 * PAGE_SIZE) })
}

fn exchange(machine: &Machine, run: FrameRun) -> Result<ExtentRun, TestOutcome> {
    let (exchanger, lists) = (machine.exchanger(), machine.lists(1));
    let (Some(exchanger), Some(mut lists)) = (exchanger, lists) else {
        error!("{}, or no room for a list", machine.capability)
    };
    match exchanger.acquire(run, ANYWHERE, lists.words()) {
        Ok(extent) => Ok(extent),
        Err(failure) => {
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            fail!("{}", failure.error)
        }
    }
}

fn give_back(machine: &Machine, extent: ExtentRun) -> Check {
    let (exchanger, lists) = (machine.exchanger(), machine.lists(2));
    let (Some(exchanger), Some(mut lists)) = (exchanger, lists) else {
        error!("{}, or no room for the lists", machine.capability)
    };
    match exchanger.release(extent, lists.words()) {
        Ok(run) => {
            machine.give(run);
            Ok(())
        }
        Err(failure) => {
            failure.remaining.into_iter().for_each(|run| machine.give(run));
            fail!("{}", failure.error)
        }
    }
}
