//! Random lists for devices with random limits, against a reference.

use std::ops::Range;
use std::ptr::NonNull;

use xen_contig::dma::{Constraints, Direction, MapError, Segment};

use crate::memory::{DriverMemory, load, noise, store};
use crate::random::Random;
use crate::reference::Reference;
use crate::scene::{KINDS, KernelMapping, ModelDevice, PAGE, StreamingScene};

const DIRECTIONS: [Direction; 3] =
    [Direction::ToDevice, Direction::FromDevice, Direction::Bidirectional];

fn limits(random: &mut Random) -> Constraints {
    let builder = Constraints::builder()
        .mask(random.pick(&[u64::MAX, (1 << 25) - 1, (1 << 24) - 1, (1 << 25) - 4097 - 500]))
        .lowest(random.pick(&[0, 0, 0, 0x40_0000, 0x12_3456]))
        .streaming_align(random.pick(&[1, 1, 1, 4, 64, 512, 4096]))
        .align(random.pick(&[1, 1, 4096, 65536]))
        .max_segment(random.pick(&[u64::MAX, u64::MAX, 65536, 4096, 5000, 512, 2048]))
        .max_segments(random.pick(&[1, 2, 3, 16, 128, 1000, usize::MAX]));
    let boundary = random.pick(&[0, 0, 0, 64, 4096, 65536, 1 << 20]);
    let builder = if boundary == 0 { builder } else { builder.boundary(boundary) };
    builder.build().unwrap()
}

/// Returns ranges that do not overlap.
fn list(random: &mut Random, memories: &[DriverMemory]) -> Vec<NonNull<[u8]>> {
    let mut used = vec![0; memories.len()];
    let entries = random.pick(&[1, 1, 1, 2, 3, 7, 7, 20]);
    let mut list = vec![];
    for _ in 0..entries {
        let memory = random.below(memories.len() as u64) as usize;
        let (end, at) = (memories[memory].pages * PAGE, used[memory]);
        let gaps = [0, 0, 1, 3, 64, 4095, PAGE - at % PAGE, random.below(9000)];
        let offset: u64 = end.min(at + random.pick(&gaps));
        let pages = random.below(16);
        let odd = 1 + random.below(9000);
        let long = if random.one_in(4) { 257 * PAGE } else { 3 };
        let len = random.pick(&[0, 1, 2, 511, PAGE, long, pages * PAGE, odd, odd]);
        let len = len.min(end - offset);
        used[memory] = offset + len;
        list.push(memories[memory].range(offset, len));
    }
    list
}

/// A mapping, and what both sides should see.
struct MappingCase<'c> {
    scene: &'c StreamingScene,
    limits: &'c Constraints,
    list: &'c [NonNull<[u8]>],
    direction: Direction,
    reference: Reference,
    bounced: Vec<bool>,
    cpu: Vec<u8>,
    device: Vec<u8>,
}

impl MappingCase<'_> {
    fn len(&self) -> u64 {
        self.cpu.len() as u64
    }

    fn segments(&self, mapping: &KernelMapping<'_>) -> Vec<Segment> {
        let segments: Vec<_> = mapping.segments().collect();
        let mut offset = 0;
        for segment in &segments {
            let (dma, len) = (segment.dma.get(), segment.len);
            assert_eq!(segment.offset, offset);
            assert!(len > 0 && len <= self.limits.max_segment(), "{segment:?}");
            assert!(
                dma >= self.limits.lowest() && dma + len - 1 <= self.limits.mask(),
                "{segment:?}"
            );
            assert!(dma.is_multiple_of(self.limits.streaming_align()), "{segment:?}");
            let boundary = self.limits.boundary().unwrap_or(1 << 63);
            assert_eq!(dma / boundary, (dma + len - 1) / boundary, "{segment:?}");
            offset += len;
        }
        assert_eq!(offset, self.len(), "the segments cover the mapping");
        assert!(segments.len() <= self.limits.max_segments());
        segments
    }

    /// Checks which bytes are bounced, and to which offset in a page.
    fn check_layout(&mut self, mapping: &KernelMapping<'_>) {
        let segments = self.segments(mapping);
        let by_page = self.reference.is_by_page(self.limits);
        let expected = if by_page { self.reference.bounced_bytes() } else { self.len() };
        assert_eq!((mapping.len(), mapping.bounced_bytes()), (self.len(), expected));
        assert_eq!(mapping.is_direct(), expected == 0);
        let align = self.limits.streaming_align();
        let address_of = |offset: u64| {
            let segment = segments.iter().rev().find(|it| it.offset <= offset).unwrap();
            segment.dma.get() + (offset - segment.offset)
        };
        if !by_page {
            self.bounced.fill(true);
            return;
        }
        for page in &self.reference.pages {
            let found = address_of(page.offset);
            match page.address {
                Some(address) => assert_eq!(found, address),
                None => assert_eq!(found % PAGE, page.in_page - page.in_page % align),
            }
        }
        if expected == 0 {
            assert_eq!(Some(segments.len() as u64), self.reference.segments, "the fewest segments");
        }
    }

    /// Checks that around the bounced bytes a device finds zeros.
    fn check_padding(&self, mapping: &KernelMapping<'_>) {
        let mut device = std::collections::HashMap::new();
        for Segment { dma, offset, len } in mapping.segments() {
            for at in (0..len).filter(|at| self.bounced[(offset + at) as usize]) {
                let address = dma.get() + at;
                device.entry(address / PAGE).or_insert_with(Vec::new).push(address % PAGE);
            }
        }
        for (frame, used) in device {
            let mut bytes = [0; PAGE as usize];
            self.scene.guest().dma_read(xen_contig::addr::DmaAddr::new(frame * PAGE), &mut bytes);
            used.into_iter().for_each(|at| bytes[at as usize] = 0);
            assert!(bytes.iter().all(|byte| *byte == 0), "the device sees other memory");
        }
    }

    fn check_bytes(&self, mapping: &KernelMapping<'_>) {
        assert!(load(self.list) == self.cpu, "the processor sees other bytes");
        let seen = ModelDevice::new(self.scene.guest(), mapping).reads(0..self.len());
        assert!(seen == self.device, "the device sees other bytes");
    }

    fn range(&self, random: &mut Random) -> Range<u64> {
        let start = random.below(self.len());
        let end = start + random.below(self.len() - start + 1);
        let (start, end) = random.pick(&[(start, end), (0, self.len()), (start, start + 1)]);
        start..end
    }

    fn written(&self) -> bool {
        self.direction != Direction::ToDevice
    }

    /// Does one thing as processor or device.
    fn step(&mut self, random: &mut Random, mapping: &mut KernelMapping<'_>) {
        let range = self.range(random);
        let place = range.start as usize..range.end as usize;
        let bytes = noise(random, range.end - range.start);
        let bounced = self.bounced.clone();
        let in_place = move |at: &usize| !bounced[*at];
        match random.below(4) {
            0 if self.written() => {
                ModelDevice::new(self.scene.guest(), mapping).writes(range.start, &bytes);
                self.device[place.clone()].copy_from_slice(&bytes);
                place.filter(in_place).for_each(|at| self.cpu[at] = self.device[at]);
            }
            1 => {
                store(self.list, range.start, &bytes);
                self.cpu[place.clone()].copy_from_slice(&bytes);
                place.filter(in_place).for_each(|at| self.device[at] = self.cpu[at]);
            }
            2 => {
                mapping.sync_for_cpu(range).unwrap();
                if self.written() {
                    self.cpu[place.clone()].copy_from_slice(&self.device[place]);
                }
            }
            _ => {
                mapping.sync_for_device(range).unwrap();
                self.device[place.clone()].copy_from_slice(&self.cpu[place]);
            }
        }
        self.check_bytes(mapping);
    }
}

/// How the cases of a test ended.
#[derive(Debug, Default)]
struct Ways {
    direct: u64,
    by_page: u64,
    dense: u64,
    too_long: u64,
}

fn run_case(
    random: &mut Random,
    scene: &StreamingScene,
    memories: &[DriverMemory],
    ways: &mut Ways,
) {
    let (limits, list) = (limits(random), list(random, memories));
    let direction = random.pick(&DIRECTIONS);
    let content = noise(random, list.iter().map(|range| range.len() as u64).sum());
    store(&list, 0, &content);
    let reference = Reference::new(scene.guest(), &list, &limits);
    let by_page = reference.is_by_page(&limits);
    let bounced = reference.bounced();
    let device = scene.device(limits);
    // SAFETY: the ranges are memory of the test, which does not access it otherwise.
    let mut mapping = match unsafe { device.map_list(&list, direction) } {
        Ok(mapping) => mapping,
        Err(MapError::Empty) => return assert!(content.is_empty()),
        Err(MapError::TooLong { bytes, max, limit }) => {
            assert_eq!((bytes, max), (content.len() as u64, device.max_mapping()));
            assert!(bytes > max && !by_page, "{limit}");
            ways.too_long += 1;
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let (cpu, seen) = (content.clone(), content);
    let mut case = MappingCase {
        scene,
        limits: &limits,
        list: &list,
        direction,
        reference,
        bounced,
        cpu,
        device: seen,
    };
    case.check_layout(&mapping);
    case.check_bytes(&mapping);
    case.check_padding(&mapping);
    // Each step compares all bytes twice.
    let steps = if case.len() > 1 << 19 { 2 } else { 6 };
    for _ in 0..random.below(steps) {
        case.step(random, &mut mapping);
    }
    match (mapping.is_direct(), by_page) {
        (true, _) => ways.direct += 1,
        (_, true) => ways.by_page += 1,
        _ => ways.dense += 1,
    }
    scene.take_calls();
    drop(mapping);
    assert_eq!(scene.take_calls(), 0, "a drop makes no hypercall");
    if case.written() {
        case.cpu = case.device;
    }
    assert!(load(&list) == case.cpu, "the processor sees other bytes after the drop");
}

#[test]
fn a_device_reads_and_writes_any_memory_through_its_segments() {
    for (seed, kind) in (1..).zip(KINDS) {
        let scene = StreamingScene::new(4096, kind);
        let low = Constraints::builder().mask((1 << 24) - 1).build().unwrap();
        let pieces =
            Constraints::builder().max_segment(4 * PAGE).max_segments(512).build().unwrap();
        let mut memories = vec![
            DriverMemory::scattered(&scene, 300),
            DriverMemory::contiguous(&scene, 300, &low),
            DriverMemory::contiguous(&scene, 64, &Constraints::default()),
            DriverMemory::contiguous(&scene, 128, &pieces),
            DriverMemory::heap(300),
        ];
        if !scene.is_translated() {
            memories.push(DriverMemory::area(&scene, 60));
        }
        let mut random = Random(0x5eed + seed);
        let mut ways = Ways::default();
        for case in 0..160 {
            let named = CaseName(seed, case);
            run_case(&mut random, &scene, &memories, &mut ways);
            std::mem::forget(named);
        }
        println!("{ways:?}");
        let Ways { direct, by_page, dense, too_long } = ways;
        assert!(direct.min(by_page).min(dense).min(too_long) > 8, "{ways:?}");
        let held = memories.iter().filter(|it| it.holds_frames()).map(|it| it.pages).sum();
        scene.check_balance(held);
        std::mem::forget(memories);
    }
}

/// Names the case of a test that panics. A panic drops it; a case that passes forgets it.
struct CaseName(u64, u64);

impl Drop for CaseName {
    fn drop(&mut self) {
        eprintln!("failed: kind {}, case {}", self.0, self.1);
    }
}
