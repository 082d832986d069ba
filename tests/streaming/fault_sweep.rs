//! Faults while memory is mapped.
//!
//! Every hypercall fails once with each errno, and every exchange fails inside Xen in every way that the
//! model knows. Afterwards each frame is counted, the driver's bytes are intact, and the next mapping works.

use std::collections::HashSet;

use fake_xen::{FakeGuest, GuestBuilder, POISON};
use fuzz::scene::CheckedKernel;
use xen_contig::dma::{Allocator, Constraints, Device, Direction, MapError, Mapping, Retain};
use xen_contig::platform::Platform;

use crate::arm::arm;
use crate::faults::{Case, InjectedFault, Tally, sweep};
use crate::memory::{DriverMemory, load, store};
use crate::scene::PAGE;

/// The pages of the driver's memory.
const PAGES: u64 = 16;
const BYTES: usize = (PAGES * PAGE) as usize;

type Model<'k, 'g> = &'k CheckedKernel<'g>;

/// The guest that meets the fault.
#[derive(Clone, Copy, Debug)]
struct MapSetting {
    retain: Retain,
    translated: bool,
    /// The most segments of the device. With 1, all bytes are bounced to one extent.
    segments: usize,
}

/// A guest, its kernel and allocator, and a device.
struct MapScene<'k, 'g> {
    guest: &'g FakeGuest,
    kernel: &'k Model<'k, 'g>,
    allocator: &'k Allocator<Model<'k, 'g>>,
    total: u64,
}

impl MapSetting {
    fn run(&self, fault: Option<&InjectedFault>) -> Case {
        let builder = GuestBuilder::new(96).machine_frames(384).real_memory();
        let guest = if self.translated { builder.translated().build() } else { builder.build() };
        let mut bitmap = Vec::new();
        let kernel = CheckedKernel::new(&guest, &mut bitmap);
        guest.paint();
        let (kernel, total) = (&&kernel, kernel.free_frames());
        // The allocator is leaked because its devices borrow it as long as it borrows the kernel.
        let allocator: &_ = Box::leak(Box::new(Allocator::new(*kernel, self.retain)));
        let scene = MapScene { guest: &guest, kernel, allocator, total };
        let limits = Constraints::builder().max_segments(self.segments).build().unwrap();
        let device = Device::new(allocator, "swept", &limits).unwrap();
        let case = scene.map_with(&device, fault);
        assert!(case.met || case.quarantined == 0, "quarantined without a fault: {case:?}");
        let again = scene.map_with(&device, None);
        assert_eq!((again.answer, again.quarantined), (Ok(()), case.quarantined));
        drop(device);
        let report = allocator.trim(u64::MAX);
        assert_eq!((allocator.stats().idle, report.error), (0, None), "{report:?}");
        scene.check_frames(0);
        case
    }
}

impl MapScene<'_, '_> {
    /// Maps memory that no device reaches, with a fault, and unmaps it.
    fn map_with(&self, device: &Device<'_, Model<'_, '_>>, fault: Option<&InjectedFault>) -> Case {
        let memory = DriverMemory::heap(PAGES);
        let list = [memory.range(0, PAGES * PAGE)];
        let content: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 256) as u8).collect();
        store(&list, 0, &content);
        fault.into_iter().for_each(|fault| arm(fault, self.guest));
        // SAFETY: the range is memory of the test, which does not access it while the device may.
        let mapping = unsafe { device.map(list[0], Direction::Bidirectional) };
        let calls = self.guest.xen().disarm();
        let (expected, answer) = match mapping {
            Ok(mapping) => {
                self.guest.xen().take_log();
                let written = self.transfer(mapping, &content);
                assert_eq!(self.guest.xen().take_log().len(), 0, "the drop made a hypercall");
                (written, Ok(()))
            }
            Err(error) => {
                assert!(matches!(error, MapError::NoBounceMemory { .. }), "{error}");
                (content, Err(error.to_string()))
            }
        };
        assert!(load(&list) == expected);
        self.check_frames(1);
        let quarantined = Platform::accounts(self.kernel).quarantined();
        Case { met: calls > 0, answer, quarantined }
    }

    /// A device reads all bytes and inverts them. Returns what the driver should find after the drop.
    fn transfer(&self, mapping: Mapping<'_, Model<'_, '_>>, content: &[u8]) -> Vec<u8> {
        assert_eq!(mapping.bounced_bytes(), content.len() as u64);
        self.check_frames(1 + PAGES);
        let inverted: Vec<u8> = content.iter().map(|byte| !byte).collect();
        for segment in mapping.segments() {
            let place = segment.offset as usize..(segment.offset + segment.len) as usize;
            let mut seen = vec![0; segment.len as usize];
            self.guest.dma_read(segment.dma, &mut seen);
            assert!(seen == content[place.clone()]);
            self.guest.dma_write(segment.dma, &inverted[place]);
        }
        inverted
    }

    /// Checks that every frame is in one place. `held` frames are in bounce memory and records.
    fn check_frames(&self, held: u64) {
        let (free, census) = (self.kernel.free(), self.guest.check());
        let stats = self.allocator.stats();
        let reserve = stats.idle + stats.set_aside + stats.records;
        let quarantined = Platform::accounts(self.kernel).quarantined();
        let places = [free.len() as u64, reserve, quarantined, held];
        let sum: u64 = places.iter().sum();
        assert_eq!(sum, self.total, "free, in the reserve, quarantined, held: {places:?}");
        let distinct: HashSet<_> = free.iter().collect();
        assert_eq!(distinct.len(), free.len());
        for pfn in &free {
            assert!(self.guest.mfn(*pfn).is_some(), "{pfn} is free and not populated");
            assert_ne!(self.guest.uniform(*pfn), Some(POISON), "{pfn} has another domain's bytes");
        }
        let lost = census.holes.len() + census.unmapped.len();
        assert!(lost as u64 <= quarantined, "{census:?}");
        assert_eq!(self.guest.given_up_dirty(), 0);
    }
}

#[test]
fn a_fault_loses_no_frame_and_no_byte() {
    let mut sum = Tally::default();
    let pv = MapSetting { retain: Retain::NOTHING, translated: false, segments: 1 };
    for (name, retain) in [("", Retain::NOTHING), (", retaining by default", Retain::default())] {
        let setting = MapSetting { retain, ..pv };
        sum += sweep(&format!("map to one extent{name}"), false, |fault| setting.run(fault));
    }
    assert!(sum.refused > 0 && sum.quarantined > 0, "{sum:?}");
}

/// Where free memory of the guest serves, no hypercall is made that could fail.
#[test]
fn bounce_pages_that_may_lie_anywhere_need_no_hypercall() {
    let first = InjectedFault::Call { call: 1, errno: hypercall::XenErrno::EPERM, after: 0 };
    for (translated, segments) in [(false, PAGES as usize), (true, 1), (true, PAGES as usize)] {
        let setting = MapSetting { retain: Retain::NOTHING, translated, segments };
        assert!(!setting.run(Some(&first)).met, "{setting:?}");
    }
}
