//! Can the device read and write memory of every kind through streaming mappings, in place and bounced?

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;

use xen_contig::addr::{DmaAddr, Pfn};
use xen_contig::dma::{CoherentBuffer, Constraints, Device, Direction, Mapping, Retain};

use super::buffer::above_mask;
use super::{Check, PAGE, TestContext, TestOutcome, error, fail, open, pattern, skip};
use crate::edu::{ENGINE_BYTES, Edu, MASK};
use crate::layout;
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::{balanced, calls};
use crate::selftest::owned::OwnedRun;

type Bytes = NonNull<[u8]>;
type Buffer<'a, 'm> = CoherentBuffer<'a, &'m Machine>;

/// The segments that the driver takes for a mapping.
const SEGMENTS: usize = 16;

/// What must be true of a mapping.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The device accesses all bytes in place.
    InPlace,
    /// All bytes are bounced.
    Bounced,
    /// Some bytes can be bounced.
    Any,
}

pub fn streaming(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let edu = open(machine)?;
    let limits = match Constraints::builder().mask(MASK).max_segments(SEGMENTS).build() {
        Ok(limits) => limits,
        Err(contradiction) => error!("{contradiction}"),
    };
    let Some(above) = above_mask(machine, 2).map(|run| OwnedRun::of(machine, run)) else {
        skip!("the device can reach all of the guest's free memory")
    };
    balanced(context, Retain::NOTHING, |allocator| {
        let device = match Device::new(allocator, "edu", &limits) {
            Ok(device) => device,
            Err(error) => fail!("{error}"),
        };
        let allocate = || match device.alloc_coherent(2 * PAGE) {
            Ok(buffer) => Ok(buffer),
            Err(error) => Err(TestOutcome::Skip(alloc::format!("{error}"))),
        };
        let (mut witness, reached) = (allocate()?, allocate()?);
        // Declared after the buffers, and so dropped before: the device loses its right to do DMA before
        // they are freed.
        let mut edu = edu;
        let (seed, witness) = (context.seed, &mut witness);
        let mut test = MappingTest { edu: &mut edu, device: &device, witness, seed };
        let mut stack = [0_u8; 300];
        let mut heap = vec![0_u8; PAGE as usize + 100];
        let linear = |pfn: Pfn| layout::linear(pfn).as_mut_ptr::<u8>();
        let stack = bytes(&raw mut stack[3], 290);
        let heap = bytes(heap.as_mut_ptr(), heap.len());
        let reached = bytes(reached.as_ptr().as_ptr().wrapping_add(50), 5000);
        let above = bytes(linear(above.first()).wrapping_add(3000), 3000);
        test.run("stack", &[stack], Expected::Any)?;
        test.run("heap", &[heap], Expected::Any)?;
        test.run("in reach", &[reached], Expected::InPlace)?;
        test.run("above the mask", &[above], Expected::Bounced)?;
        test.run("list", &[part(above, 10, 30), reached, part(stack, 1, 99)], Expected::Any)
    })
}

fn bytes(start: *mut u8, len: usize) -> Bytes {
    let start = NonNull::new(start).unwrap_or(NonNull::dangling());
    NonNull::slice_from_raw_parts(start, len)
}

fn part(whole: Bytes, offset: usize, len: usize) -> Bytes {
    bytes(whole.cast::<u8>().as_ptr().wrapping_add(offset), len)
}

struct MappingTest<'t, 'd, 'a, 'm> {
    edu: &'t mut Edu,
    device: &'d Device<'a, &'m Machine>,
    /// Memory in the device's reach, by which the processor sees what the device has read.
    witness: &'t mut Buffer<'d, 'm>,
    seed: u64,
}

impl MappingTest<'_, '_, '_, '_> {
    /// Maps memory. The device must read what the processor wrote, and the processor what the device wrote.
    fn run(&mut self, name: &str, list: &[Bytes], expected: Expected) -> Check {
        let len: usize = list.iter().map(|range| range.len()).sum();
        let of_round = |round| (0..len as u64).map(|at| pattern(self.seed, round, at)).collect();
        let (content, answer): (Vec<u8>, Vec<u8>) = (of_round(0), of_round(1));
        store(list, &content);
        let before = calls();
        // SAFETY: the ranges are memory of this test, which accesses it through raw pointers. If the device
        // does not stop, the mapping is forgotten and the device loses its right to do DMA
        // ([M1](xen_contig::rules#M1)).
        let mapping = match unsafe { self.device.map_list(list, Direction::Bidirectional) } {
            Ok(mapping) => mapping,
            Err(error) if error.is_transient() => skip!("mapping {name}: {error}"),
            Err(error) => fail!("mapping {name}: {error}"),
        };
        let mapped = calls() - before;
        say!(
            "# edu-dma-streaming: {name}: {len} bytes, {} bounced, {} segments, {mapped} hypercalls",
            mapping.bounced_bytes(),
            mapping.segments().count()
        );
        let result = self.transfer(&mapping, &content, &answer, expected);
        if result.is_err() {
            core::mem::forget(mapping);
            return result;
        }
        let before = calls();
        drop(mapping);
        if calls() != before {
            fail!("unmapping {name} made {} hypercalls", calls() - before);
        }
        match load(list).iter().zip(&answer).position(|(found, answer)| found != answer) {
            None => Ok(()),
            Some(at) => fail!("{name}: byte {at} is not what the device wrote"),
        }
    }

    fn transfer(
        &mut self,
        mapping: &Mapping<'_, &Machine>,
        content: &[u8],
        answer: &[u8],
        expected: Expected,
    ) -> Check {
        let bounced = mapping.bounced_bytes();
        let as_expected = match expected {
            Expected::InPlace => bounced == 0,
            Expected::Bounced => bounced == mapping.len(),
            Expected::Any => true,
        };
        if !as_expected || mapping.segments().count() > SEGMENTS {
            fail!("{mapping:?} is not mapped as expected");
        }
        let mut seen = vec![0; content.len()];
        self.each_part(mapping, |test, start, place| test.device_reads(start, &mut seen[place]))?;
        if let Some(at) = seen.iter().zip(content).position(|(seen, content)| seen != content) {
            fail!("the device read {:#04x} as byte {at}, expected {:#04x}", seen[at], content[at]);
        }
        self.each_part(mapping, |test, start, place| test.device_writes(start, &answer[place]))
    }

    /// Calls `act` with the parts of a mapping that the engine moves at a time.
    fn each_part(
        &mut self,
        mapping: &Mapping<'_, &Machine>,
        mut act: impl FnMut(&mut Self, DmaAddr, Range<usize>) -> Check,
    ) -> Check {
        for segment in mapping.segments() {
            let mut done = 0;
            while done < segment.len {
                let bytes = (segment.len - done).min(ENGINE_BYTES);
                let offset = (segment.offset + done) as usize;
                let Some(start) = segment.dma.checked_add(done) else {
                    fail!("{segment:?} has an address beyond 64 bits")
                };
                act(self, start, offset..offset + bytes as usize)?;
                done += bytes;
            }
        }
        Ok(())
    }

    fn device_reads(&mut self, start: DmaAddr, into: &mut [u8]) -> Check {
        let (bytes, witness) = (into.len() as u64, self.witness.dma_addr());
        // SAFETY: the addresses are those of a segment and of the witness, which are RAM within the mask. The
        // test owns both.
        let moved = unsafe {
            self.edu.fetch(start, 0, bytes).and_then(|()| self.edu.store(0, witness, bytes))
        };
        if let Err(error) = moved {
            fail!("reading {bytes} bytes at {start} by the device: {error}");
        }
        match self.witness.read(0, into) {
            Ok(()) => Ok(()),
            Err(outside) => fail!("accessing the witness: {outside}"),
        }
    }

    fn device_writes(&mut self, start: DmaAddr, from: &[u8]) -> Check {
        let (bytes, witness) = (from.len() as u64, self.witness.dma_addr());
        if let Err(outside) = self.witness.write(0, from) {
            fail!("accessing the witness: {outside}");
        }
        // SAFETY: as in `device_reads`.
        let moved = unsafe {
            self.edu.fetch(witness, 0, bytes).and_then(|()| self.edu.store(0, start, bytes))
        };
        match moved {
            Ok(()) => Ok(()),
            Err(error) => fail!("writing {bytes} bytes at {start} by the device: {error}"),
        }
    }
}

/// Copies the bytes of ranges out of the test's memory.
fn load(list: &[Bytes]) -> Vec<u8> {
    let each = |range: &Bytes| {
        let start = range.cast::<u8>().as_ptr();
        // SAFETY: the range is memory of this test, which the device does not access now.
        (0..range.len()).map(move |at| unsafe { start.add(at).read_volatile() })
    };
    list.iter().flat_map(each).collect()
}

/// Copies bytes to the test's memory.
fn store(list: &[Bytes], mut bytes: &[u8]) {
    for range in list {
        let (now, rest) = bytes.split_at(range.len());
        let start = range.cast::<u8>().as_ptr();
        for (at, byte) in now.iter().enumerate() {
            // SAFETY: as in `load`.
            unsafe { start.add(at).write_volatile(*byte) };
        }
        bytes = rest;
    }
}
