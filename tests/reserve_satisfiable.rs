//! Every request that memory can satisfy is served, and nothing that is served violates a limit.
//!
//! An oracle tells which requests memory can satisfy. It follows the definition alone: it tries every
//! run of available frames and every way to cut it into segments. Available are the kernel's free
//! frames and the idle ones of the reserve, and where Xen has memory, the extents that it has. To a
//! caller that must not sleep, the idle frames of the reserve are available alone.

#![forbid(unsafe_code)]

mod random;

use std::collections::BTreeSet;
use std::env;

use fake_xen::{FakePlatform, GuestBuilder, Owner};
use xen_contig::addr::{Mfn, PAGE_SIZE, Pfn};
use xen_contig::dma::{Allocator, CoherentBuffer, Constraints, Retain, Segment, Sleep};
use xen_contig::frames::FrameRun;
use xen_contig::platform::Platform;

use random::Random;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The number of guests of each kind. `SATISFIABLE_SEEDS` sets another number.
const SEEDS: u64 = 100;
/// The number of requests in each guest.
const REQUESTS: usize = 60;

/// The word that drivers and the kernel write to their frames. The reserve's records are not uniform.
const USED: u64 = 0xd21e_d21e_d21e_d21e;

/// The limits of a device, in the terms of the definition.
#[derive(Clone, Copy, Debug)]
struct Device {
    size: u64,
    mask: u64,
    lowest: u64,
    align: u64,
    boundary: u64,
    max_segment: u64,
    max_segments: usize,
}

impl Device {
    fn random(random: &mut Random, frames: u64) -> Self {
        let any = 1 << 40;
        let top = frames * PAGE;
        let (mut mask, mut lowest) = (any - 1, 0);
        if random.one_in(2) {
            // The mask has any shape: it need not be one less than a power of two.
            mask = match random.below(3) {
                0 => frames.next_power_of_two() * PAGE / random.pick(&[1, 2, 4]) - 1,
                1 => random.below(top) | 0x1fff,
                _ => top / 4 * 3 + random.below(PAGE),
            };
        }
        if random.one_in(4) {
            lowest = random.below(mask.min(top) / 2);
        }
        let size = match random.below(4) {
            0 => random.pick(&[1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 32]) * PAGE,
            1 => random.pick(&[512, 1024, 3 * 512, 9 * 512, 25 * 512]),
            2 => PAGE * (1 + random.below(100)),
            _ => 512 * (1 + random.below(100)),
        };
        let max_segments = random.pick(&[1, 1, 2, 3, 4, 8, 16, 64, 256]);
        let max_segment =
            random.pick(&[any, any, 512, 1536, 4096, 5120, 6144, 8192, 12_288, 65_536]);
        let boundary = random.pick(&[any, any, any, 1024, 4096, 8192, 16_384, 65_536]);
        let align = random.pick(&[1, 1, 1, 512, 1024, 4096, 8192, 16_384]);
        Self { size, mask, lowest, align, boundary, max_segment, max_segments }
    }

    fn constraints(&self) -> Option<Constraints> {
        let builder = Constraints::builder().mask(self.mask).lowest(self.lowest).align(self.align);
        let builder = builder.boundary(self.boundary).max_segment(self.max_segment);
        builder.max_segments(self.max_segments).build().ok()
    }

    fn frames(&self) -> u64 {
        self.size.div_ceil(PAGE)
    }

    /// Returns the natural alignment, which a buffer in one segment has.
    fn natural(&self) -> u64 {
        if self.max_segments == 1 { self.frames().next_power_of_two() * PAGE } else { 1 }
    }

    /// Returns true if one segment can hold these bytes.
    fn takes(&self, address: u64, len: u64) -> bool {
        let last = address + (len - 1);
        address >= self.lowest
            && last <= self.mask
            && address.is_multiple_of(self.align)
            && len <= self.max_segment
            && address / self.boundary == last / self.boundary
    }

    /// Returns true if the frames can be a buffer of this device.
    ///
    /// It tries every cut at a multiple of 512 bytes. All limits are multiples of 512, so no other
    /// cut has fewer segments.
    fn serves(&self, gfns: &[u64]) -> bool {
        const UNIT: u64 = 512;
        if !(gfns[0] * PAGE).is_multiple_of(self.natural()) {
            return false;
        }
        let address = |unit: u64| gfns[(unit * UNIT / PAGE) as usize] * PAGE + unit * UNIT % PAGE;
        let units = self.size / UNIT;
        let mut fewest = vec![usize::MAX; units as usize + 1];
        fewest[0] = 0;
        for begin in 0..units {
            let before = fewest[begin as usize];
            if before >= self.max_segments {
                continue;
            }
            for end in begin + 1..=units {
                let contiguous = address(end - 1) == address(begin) + (end - 1 - begin) * UNIT;
                if !contiguous || !self.takes(address(begin), (end - begin) * UNIT) {
                    break;
                }
                let reached = &mut fewest[end as usize];
                *reached = (*reached).min(before + 1);
            }
        }
        fewest[units as usize] <= self.max_segments
    }

    /// Checks a buffer against the limits.
    fn check(&self, buffer: &CoherentBuffer<'_, Kernel>, platform: Kernel) {
        let segments: Vec<Segment> = buffer.segments().collect();
        assert!((1..=self.max_segments).contains(&segments.len()), "{self:?}: {segments:?}");
        assert!(segments[0].dma.get().is_multiple_of(self.natural()), "{self:?}: {segments:?}");
        let mut offset = 0;
        for Segment { dma, offset: at, len } in segments {
            assert_eq!(at, offset, "{self:?}: {buffer:?}");
            assert!(self.takes(dma.get(), len), "{self:?}: {len} bytes at {dma:?}");
            for byte in (0..len).step_by(512).chain([len - 1]) {
                let pfn = buffer.frames().first().add((at + byte) / PAGE);
                let gfn =
                    Platform::p2m(&platform).gfn(pfn).expect("a frame of the buffer").number();
                let expected = gfn * PAGE + (at + byte) % PAGE;
                assert_eq!(dma.get() + byte, expected, "{self:?}: {buffer:?}");
            }
            offset += len;
        }
        assert_eq!(offset, self.size, "{self:?}: {buffer:?}");
    }
}

/// The kind of guest, and whether Xen has memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A PV guest. Xen has no free memory, so only the guest's own counts.
    PvWithoutXen,
    /// A PV guest. Xen has free memory.
    PvWithXen,
    /// A translated guest.
    Translated,
}

struct OracleScene {
    platform: Kernel,
    kind: Kind,
}

impl OracleScene {
    /// Makes a guest that has contiguous memory of many lengths, all of it free.
    fn new(kind: Kind, frames: u64, random: &mut Random) -> Self {
        let builder =
            GuestBuilder::new(frames).machine_frames(3 * frames).seed(random.below(1 << 40));
        let guest =
            if kind == Kind::Translated { builder.translated().build() } else { builder.build() };
        let platform: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
        // When their allocator is dropped, the buffers become free memory of the kernel, still
        // contiguous.
        let allocator = Allocator::new(platform, Retain::default());
        let buffers: Vec<_> = (0..frames / 16)
            .filter_map(|_| {
                let pages = random.pick(&[1, 2, 3, 4, 5, 8, 11, 16, 32]);
                let mask = 3 * frames * PAGE / random.pick(&[1, 1, 2, 4]) - 1;
                let limits = Constraints::builder().mask(mask).build().ok()?;
                allocator.alloc_coherent(pages * PAGE, &limits).ok()
            })
            .collect();
        drop(buffers);
        drop(allocator);
        if kind == Kind::PvWithoutXen {
            platform.guest().exhaust_but(0);
        }
        Self { platform, kind }
    }

    /// Returns the free frames of the kernel.
    fn free(&self) -> BTreeSet<u64> {
        let taken: Vec<FrameRun> = std::iter::from_fn(|| self.platform.take(1, 1)).collect();
        let free = taken.iter().map(|run| run.first().number()).collect();
        taken.into_iter().for_each(|run| {
            self.platform.guest().fill(run.first(), USED);
            self.platform.give(run);
        });
        free
    }

    /// Returns the idle frames of the reserve: frames that are not free, not in use and not records.
    fn idle(&self, free: &BTreeSet<u64>, in_use: &BTreeSet<u64>) -> BTreeSet<u64> {
        let guest = self.platform.guest();
        let is_idle = |pfn: &Pfn| {
            let known = free.contains(&pfn.number()) || in_use.contains(&pfn.number());
            // The words of a record page differ, and an unused record page is zeroed.
            !known && guest.uniform(*pfn).is_some_and(|word| word != 0)
        };
        guest.usable().filter(is_idle).map(Pfn::number).collect()
    }

    /// Returns true if available frames of the guest can be a buffer.
    fn guest_can_serve(&self, device: &Device, available: &BTreeSet<u64>) -> bool {
        let p2m = Platform::p2m(&self.platform);
        available.iter().any(|first| {
            let run = *first..*first + device.frames();
            let gfn = |pfn: u64| {
                available.contains(&pfn).then(|| p2m.gfn(Pfn::new(pfn)))?.map(|gfn| gfn.number())
            };
            let gfns: Option<Vec<u64>> = run.map(gfn).collect();
            gfns.is_some_and(|gfns| device.serves(&gfns))
        })
    }

    /// Returns true if Xen can exchange free frames for one extent that the device takes.
    ///
    /// Xen's limits are powers of two. So another mask counts only if all of the machine lies below it.
    fn xen_can_serve(&self, device: &Device, free: &BTreeSet<u64>) -> bool {
        let order = device.size.max(device.align).div_ceil(PAGE).next_power_of_two().ilog2();
        let frames = 1 << order;
        let machine = self.platform.guest().xen().machine_frames();
        let limit = (device.mask + 1) / PAGE;
        if self.kind != Kind::PvWithXen || order > 9 || device.lowest > 0 {
            return false;
        }
        if limit < machine && !(device.mask + 1).is_power_of_two() {
            return false;
        }
        // The frames that are given up, and some for records. Those of the buffer lie in a row.
        let in_a_row =
            |first: &u64| (*first..*first + device.frames()).all(|pfn| free.contains(&pfn));
        if (free.len() as u64) < frames + 16 || !free.iter().any(in_a_row) {
            return false;
        }
        let is_free = |mfn| self.platform.guest().owner(Mfn::new(mfn)) == Some(Owner::Free);
        let serves = |first: &u64| {
            let extent = *first..*first + frames;
            extent.end <= machine.min(limit)
                && extent.clone().all(is_free)
                && device.serves(&extent.collect::<Vec<u64>>())
        };
        // Two extents must fit, because the model never backs a guest frame with the machine frame of
        // the same number.
        (frames..machine.min(limit)).step_by(frames as usize).filter(serves).nth(1).is_some()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    served: u64,
    refused: u64,
    by_guest: u64,
    by_xen: u64,
    /// Served by the reserve alone, to a caller that must not sleep.
    by_reserve: u64,
}

fn play(kind: Kind, seed: u64, answers: &mut Answers) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let frames = random.pick(&[128, 200, 300]);
    let scene = OracleScene::new(kind, frames, &mut random);
    let platform = scene.platform;
    let retain = random.pick(&[Retain::default(), Retain::Bytes { low: 0, high: 1 << 20 }]);
    let allocator = Allocator::new(platform, retain);
    let mut buffers: Vec<CoherentBuffer<'_, Kernel>> = Vec::new();
    let mut kernels: Vec<FrameRun> = Vec::new();
    for step in 0..REQUESTS {
        // The kernel uses other frames than before.
        kernels.drain(..).for_each(|run| platform.give(run));
        let density = random.pick(&[0, 1, 4, 16]);
        let taken: Vec<FrameRun> = std::iter::from_fn(|| platform.take(1, 1)).collect();
        for run in taken {
            let kept = density > 0 && random.one_in(density + 1);
            if kept { kernels.push(run) } else { platform.give(run) }
        }
        let device = Device::random(&mut random, frames);
        let Some(limits) = device.constraints() else { continue };
        let free = scene.free();
        let used = kernels.iter().chain(buffers.iter().map(CoherentBuffer::frames));
        let in_use: BTreeSet<u64> = used.flat_map(|run| run.iter().map(Pfn::number)).collect();
        let idle = scene.idle(&free, &in_use);
        // The records of frames that join the reserve need frames too.
        let roomy = free.len() + idle.len() >= device.frames() as usize + 16;
        // Without sleeping, what is idle counts alone, however it is cut into blocks.
        let sleeps = !random.one_in(3);
        let limits = match sleeps {
            true => limits,
            false => limits.to_builder().sleep(Sleep::MustNot).build().unwrap(),
        };
        let available = if sleeps { free.union(&idle).copied().collect() } else { idle };
        let by_guest = (roomy || !sleeps) && scene.guest_can_serve(&device, &available);
        let by_xen = sleeps && scene.xen_can_serve(&device, &free);
        platform.guest().xen().take_log();
        let result = allocator.alloc_coherent(device.size, &limits);
        let log = platform.guest().xen().take_log();
        assert!(sleeps || log.is_empty(), "seed {seed}, request {step}: {log:?}");
        match result {
            Ok(buffer) => {
                answers.by_reserve += u64::from(!sleeps);
                device.check(&buffer, platform);
                buffer.frames().iter().for_each(|pfn| platform.guest().fill(pfn, USED));
                buffers.push(buffer);
                answers.served += 1;
            }
            Err(error) => {
                let stats = allocator.stats();
                let why = format!(
                    "seed {seed}, request {step}, {kind:?}, {device:?}: {error:?}, {stats:?}"
                );
                assert!(!by_guest, "the guest has memory: {why}");
                assert!(!by_xen, "Xen has memory: {why}");
                answers.refused += 1;
            }
        }
        answers.by_guest += u64::from(by_guest);
        answers.by_xen += u64::from(by_xen && !by_guest);
        while buffers.len() > 6 || (!buffers.is_empty() && random.one_in(3)) {
            drop(buffers.swap_remove(random.below(buffers.len() as u64) as usize));
        }
    }
    drop(buffers);
    kernels.into_iter().for_each(|run| platform.give(run));
    platform.guest().check_whole();
}

fn seeds() -> u64 {
    env::var("SATISFIABLE_SEEDS").map_or(SEEDS, |it| it.parse().expect("a number"))
}

fn play_all(kind: Kind) {
    let seeds = seeds();
    let mut answers = Answers::default();
    (1..=seeds).for_each(|seed| play(kind, seed, &mut answers));
    println!("{kind:?}: {answers:?}");
    let Answers { served, refused, by_guest, by_xen, by_reserve } = answers;
    assert!(served > 10 * seeds && refused > 3 * seeds && by_guest > 10 * seeds, "{answers:?}");
    assert!(by_reserve > seeds, "{answers:?}");
    assert!(kind != Kind::PvWithXen || 4 * by_xen > seeds, "{answers:?}");
}

/// Fills the reserve with idle pieces of many lengths, and asks for them without sleeping.
fn play_idle(kind: Kind, seed: u64, answers: &mut Answers) {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let frames = random.pick(&[128, 200, 300]);
    let scene = OracleScene::new(kind, frames, &mut random);
    let platform = scene.platform;
    let all = 1 << 30;
    let allocator = Allocator::new(platform, Retain::Bytes { low: all, high: all });
    let any = Constraints::default();
    let mut buffers: Vec<CoherentBuffer<'_, Kernel>> = Vec::new();
    let longest = random.pick(&[1, 2, 5, 40]);
    while let Ok(buffer) = allocator.alloc_coherent((1 + random.below(longest)) * PAGE, &any) {
        buffers.push(buffer);
    }
    for step in 0..REQUESTS {
        let dropped = random.below(buffers.len() as u64 / 2 + 1);
        for _ in 0..dropped {
            let buffer = buffers.swap_remove(random.below(buffers.len() as u64) as usize);
            buffer.frames().iter().for_each(|pfn| platform.guest().fill(pfn, USED));
        }
        let device = Device::random(&mut random, frames);
        let Some(limits) = device.constraints() else { continue };
        let limits = limits.to_builder().sleep(Sleep::MustNot).build().unwrap();
        let used = buffers.iter().flat_map(|buffer| buffer.frames().iter().map(Pfn::number));
        let idle = scene.idle(&scene.free(), &used.collect());
        let by_guest = scene.guest_can_serve(&device, &idle);
        let result = allocator.alloc_coherent(device.size, &limits);
        answers.by_guest += u64::from(by_guest);
        match result {
            Ok(buffer) => {
                device.check(&buffer, platform);
                buffers.push(buffer);
                answers.by_reserve += 1;
            }
            Err(error) => {
                let why = format!("seed {seed}, request {step}, {kind:?}, {device:?}: {error:?}");
                assert!(!by_guest, "the reserve has memory: {why}");
                answers.refused += 1;
            }
        }
    }
    drop(buffers);
    drop(allocator);
    platform.guest().check_whole();
}

fn play_all_idle(kind: Kind) {
    let mut answers = Answers::default();
    (1..=seeds()).for_each(|seed| play_idle(kind, seed, &mut answers));
    println!("{kind:?}: {answers:?}");
    let Answers { refused, by_guest, by_reserve, .. } = answers;
    assert!(refused > 3 * seeds() && by_guest > 10 * seeds(), "{answers:?}");
    assert!(by_reserve >= by_guest, "{answers:?}");
}

#[test]
fn idle_memory_serves_without_sleeping() {
    play_all_idle(Kind::PvWithoutXen);
}

#[test]
fn idle_memory_of_a_translated_guest_serves_without_sleeping() {
    play_all_idle(Kind::Translated);
}

#[test]
fn the_guests_own_memory_serves_if_xen_has_none() {
    play_all(Kind::PvWithoutXen);
}

#[test]
fn memory_of_the_guest_or_of_xen_serves() {
    play_all(Kind::PvWithXen);
}

#[test]
fn memory_of_a_translated_guest_serves() {
    play_all(Kind::Translated);
}
