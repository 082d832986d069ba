//! A guest with real memory, its allocator, and a device.

use std::ops::Range;

use fake_xen::{AreaConfig, FakeGuest, FakePlatform, GuestBuilder};
use xen_contig::addr::{DmaAddr, PAGE_SIZE};
use xen_contig::dma::{Allocator, Constraints, Device, Mapping, Retain};

pub type Kernel = &'static FakePlatform;
pub type KernelMapping<'m> = Mapping<'m, Kernel>;

pub const PAGE: u64 = PAGE_SIZE as u64;

/// The kinds of guests.
pub const KINDS: [fn(GuestBuilder) -> GuestBuilder; 2] = [|pv| pv, GuestBuilder::translated];

pub struct StreamingScene {
    pub platform: Kernel,
    pub allocator: &'static Allocator<Kernel>,
    free: u64,
}

impl StreamingScene {
    /// Makes a scene around a guest of `frames` frames.
    pub fn new(frames: u64, kind: fn(GuestBuilder) -> GuestBuilder) -> Self {
        Self::around(kind(GuestBuilder::new(frames)).areas(AreaConfig::lazy(512)))
    }

    pub fn around(builder: GuestBuilder) -> Self {
        let platform: Kernel =
            Box::leak(Box::new(FakePlatform::new(builder.real_memory().build())));
        let allocator = Box::leak(Box::new(Allocator::new(platform, Retain::NOTHING)));
        let free = platform.free_frames();
        platform.guest().xen().take_log();
        Self { platform, allocator, free }
    }

    pub fn guest(&self) -> &'static FakeGuest {
        self.platform.guest()
    }

    pub fn is_translated(&self) -> bool {
        self.guest().p2m().is_translated()
    }

    pub fn device(&self, limits: Constraints) -> Device<'static, Kernel> {
        Device::new(self.allocator, "streaming", &limits).unwrap()
    }

    /// Returns how many hypercalls were made since the last call of this method.
    pub fn take_calls(&self) -> usize {
        self.guest().xen().take_log().len()
    }

    /// Checks that every frame but `held` ones is free again.
    pub fn check_balance(&self, held: u64) {
        let report = self.allocator.trim(u64::MAX);
        let stats = self.allocator.stats();
        assert_eq!((report.error, stats.idle, stats.set_aside), (None, 0, 0), "{stats:?}");
        assert_eq!(self.platform.free_frames() + stats.records + held, self.free, "{stats:?}");
    }
}

/// What a device does with the segments of a mapping.
pub struct ModelDevice<'m> {
    guest: &'static FakeGuest,
    mapping: &'m KernelMapping<'m>,
}

impl<'m> ModelDevice<'m> {
    pub fn new(guest: &'static FakeGuest, mapping: &'m KernelMapping<'m>) -> Self {
        Self { guest, mapping }
    }

    /// Calls `f` with the device address of each part of a range, and with its place in the range.
    fn each(&self, range: Range<u64>, mut f: impl FnMut(DmaAddr, Range<usize>)) {
        for segment in self.mapping.segments() {
            let start = range.start.max(segment.offset);
            let end = range.end.min(segment.offset + segment.len);
            if start < end {
                let at = segment.dma.checked_add(start - segment.offset).unwrap();
                f(at, (start - range.start) as usize..(end - range.start) as usize);
            }
        }
    }

    pub fn reads(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.each(range, |at, place| self.guest.dma_read(at, &mut bytes[place]));
        bytes
    }

    pub fn writes(&self, at: u64, bytes: &[u8]) {
        let range = at..at + bytes.len() as u64;
        self.each(range, |at, place| self.guest.dma_write(at, &bytes[place]));
    }
}
