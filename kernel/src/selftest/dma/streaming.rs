//! What does it cost to map memory for a device and to unmap it, in place and bounced?

use alloc::vec::Vec;
use core::ptr::NonNull;

use xen_contig::dma::{Device, Direction, Retain};

use super::helpers::{PAGE, balanced, build, calls, is_shortage};
use super::{Check, Test, TestContext, fail, skip};
use crate::machine::Machine;
use crate::say;
use crate::selftest::owned::OwnedRun;
use crate::selftest::vmap;
use crate::tsc::tsc;

const SIZES: [u64; 4] = [64, PAGE, 64 << 10, 1 << 20];

/// The mappings of each size, after a first one that is not counted.
const ROUNDS: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-streaming-cost", cost));
}

fn cost(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let pages = SIZES.into_iter().max().unwrap_or(PAGE) / PAGE;
    let limits = build(|it| it.max_segments(pages as usize))?;
    let run = OwnedRun::take(machine, pages)?;
    // A device cannot access an area in place: its frames are unknown.
    let area = vmap::map(machine, &run, "streaming")?;
    let elsewhere = area.pointer().cast::<u8>();
    let result = balanced(context, Retain::default(), |allocator| {
        let device = match Device::new(allocator, "streaming", &limits) {
            Ok(device) => device,
            Err(error) => fail!("{error}"),
        };
        let reached = match device.alloc_coherent(pages * PAGE) {
            Ok(buffer) => buffer,
            Err(error) if is_shortage(&error) => skip!("{error}"),
            Err(error) => fail!("{error}"),
        };
        for bytes in SIZES {
            measure(&device, "in place", reached.as_ptr().as_ptr(), bytes)?;
            measure(&device, "bounced", elsewhere, bytes)?;
        }
        Ok(())
    });
    area.vunmap().and(result)
}

/// Maps and unmaps memory of the test repeatedly.
fn measure(device: &Device<'_, &Machine>, way: &str, start: *mut u8, bytes: u64) -> Check {
    let Some(start) = NonNull::new(start) else { fail!("the test has no memory") };
    let range = NonNull::slice_from_raw_parts(start, bytes as usize);
    let (mut map, mut unmap, mut warm) = (0, 0, 0);
    for round in 0..=ROUNDS {
        let (before, start) = (calls(), tsc());
        // SAFETY: the test owns the range and does not access it. No device has the addresses.
        let mapping = unsafe { device.map(range, Direction::Bidirectional) };
        let mapped = tsc();
        let mapping = match mapping {
            Ok(mapping) => mapping,
            Err(error) if error.is_transient() => skip!("{bytes} bytes {way}: {error}"),
            Err(error) => fail!("{bytes} bytes {way}: {error}"),
        };
        let bounced = if way == "bounced" { bytes } else { 0 };
        if mapping.bounced_bytes() != bounced {
            fail!("{mapping:?}, expected {bounced} bytes to be bounced");
        }
        let dropped = tsc();
        drop(mapping);
        if round > 0 {
            (map, unmap) = (map + mapped - start, unmap + tsc() - dropped);
            warm += calls() - before;
        }
    }
    say!(
        "# dma-streaming-cost: {bytes} bytes {way}: map {}, unmap {} ticks, {warm} hypercalls in {ROUNDS}",
        map / ROUNDS,
        unmap / ROUNDS
    );
    match warm {
        0 => Ok(()),
        made => fail!("{made} hypercalls, although the reserve has bounce memory"),
    }
}
