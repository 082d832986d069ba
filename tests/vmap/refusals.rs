//! Requests that the areas or Xen refuse, and the state afterwards.

use std::cell::Cell;

use fake_xen::{AreaConfig, FakeGuest, FakeXen, Fault, GuestBuilder};
use hypercall::{VirtAddr, XenErrno};
use xen_contig::addr::{Gfn, Pfn};
use xen_contig::paging::FlushClock;
use xen_contig::vmap::{
    AreaCount, AreaEntry, AreaTables, Budget, Flush, UnmapMode, Vmap, VmapError, VmapMemory,
    VmapSizes, VmapStats,
};

use crate::{RW, frames, guest, page, vmap};

#[test]
fn a_flush_that_xen_refused_covers_nothing() {
    for config in [AreaConfig::lazy(512), AreaConfig::sync(512)] {
        let guest = guest(config);
        let area = vmap(&guest, 300, 8, "ring");
        guest.xen().arm(Fault::refuse(2, XenErrno::EPERM));
        let unmapped = guest.areas().vunmap(area).map_err(|error| error.to_string());
        let purged = guest.areas().purge_all(Flush::Now);
        assert_eq!(guest.xen().disarm(), 1, "the second call is the flush");
        let refused = VmapError::FlushRefused { errno: XenErrno::EPERM };
        match config.mode {
            UnmapMode::Lazy => assert_eq!((unmapped, purged), (Ok(()), Err(refused))),
            // `vunmap` returns the error. The next flush succeeds, so no area stays retired.
            UnmapMode::Sync => {
                assert_eq!(unmapped, Err(refused.to_string()));
                assert_eq!(purged.map(|purged| purged.flushed), Ok(true));
                continue;
            }
        }
        assert_eq!(guest.areas().stats().retired, AreaCount { areas: 1, pages: 8 });
    }
}

#[test]
fn an_area_that_xen_refuses_in_part_is_not_mapped_at_all() {
    let guest = guest(AreaConfig::lazy(512));
    // Frame 0 is a page table, which Xen does not let a guest map writable.
    let frames = [Pfn::new(300), Pfn::new(0)];
    let refused = guest.vmap(frames, RW, "half");
    assert!(matches!(refused, Err(VmapError::Refused { pfn, .. }) if pfn == frames[1]));
    let stats = guest.areas().stats();
    assert_eq!((stats.live, stats.leftover), (AreaCount::default(), AreaCount::default()));
    assert!(!guest.is_mapped(guest.areas().tables().base()));
}

#[test]
fn impossible_requests_are_refused_by_name() {
    let guest = guest(AreaConfig { areas: 2, ..AreaConfig::lazy(512) });
    let areas = guest.areas();
    assert_eq!(guest.vmap([], RW, "none"), Err(VmapError::Empty));
    // The guard page of the area and the last page of the stretch stay unmapped.
    let many = VmapError::TooLarge { pages: 511, limit: 510 };
    assert_eq!(guest.vmap(frames(300, 511), RW, "many"), Err(many));
    areas.vunmap(vmap(&guest, 300, 510, "all")).unwrap();
    areas.purge_all(Flush::Now).unwrap();
    for pfn in [2048, 1 << 40, u64::MAX].map(Pfn::new) {
        let refused = VmapError::NoSuchFrame { pfn, frames: 2048 };
        assert_eq!(guest.vmap([pfn], RW, "beyond"), Err(refused));
    }
    let (one, two) = (vmap(&guest, 300, 1, "one"), vmap(&guest, 301, 1, "two"));
    let full = VmapError::NoSpace { pages: 1, free: 507, areas: 2 };
    assert_eq!(guest.vmap([Pfn::new(302)], RW, "three"), Err(full));
    areas.vunmap(one).unwrap();
    let three = vmap(&guest, 302, 1, "three");
    let elsewhere =
        FakeGuest::areas(&GuestBuilder::new(2048).areas(AreaConfig::lazy(512)).build()).vunmap(two);
    assert!(matches!(elsewhere, Err(VmapError::UnknownArea(_))));
    areas.vunmap(three).unwrap();
}

#[test]
fn an_endless_iterator_is_refused() {
    let guest = guest(AreaConfig::lazy(512));
    let areas = guest.areas();
    let endless = guest.vmap(std::iter::repeat(Pfn::new(300)), RW, "endless");
    assert_eq!(endless, Err(VmapError::TooLarge { pages: usize::MAX, limit: 510 }));
    let unsized_ = guest.vmap((0..u64::MAX).map(Pfn::new), RW, "all numbers");
    assert_eq!(unsized_, Err(VmapError::TooLarge { pages: usize::MAX, limit: 510 }));
    // This iterator has no known length, so the count stops above the limit.
    let filtered = guest.vmap(std::iter::repeat(Pfn::new(300)).filter(|_| true), RW, "endless");
    assert_eq!(filtered, Err(VmapError::TooLarge { pages: 511, limit: 510 }));
    assert_eq!(areas.stats().live, AreaCount::default());
}

/// An iterator that returns another frame in a later pass.
#[derive(Clone)]
struct ChangingFrames<'t> {
    passes: &'t Cell<u32>,
    asked: u32,
}

impl Iterator for ChangingFrames<'_> {
    type Item = Pfn;

    fn next(&mut self) -> Option<Pfn> {
        self.asked += 1;
        self.passes.set(self.passes.get() + 1);
        // Each pass returns one frame. In the first two passes this frame exists.
        (self.asked == 1).then(|| Pfn::new(if self.passes.get() < 4 { 300 } else { 1 << 40 }))
    }
}

#[test]
fn frames_that_change_between_passes_are_checked_again() {
    let guest = guest(AreaConfig::lazy(512));
    let passes = Cell::new(0);
    let refused = guest.vmap(ChangingFrames { passes: &passes, asked: 0 }, RW, "changing");
    let pfn = Pfn::new(1 << 40);
    assert_eq!(refused, Err(VmapError::NoSuchFrame { pfn, frames: 2048 }));
    assert_eq!(guest.areas().stats().live, AreaCount::default());
    guest.check_whole();
}

#[test]
fn memory_for_another_number_of_pages_is_refused() {
    let guest = guest(AreaConfig::lazy(512));
    let sizes = VmapSizes { frames: 2048, pages: 511, areas: 4 };
    let block = vec![0_u64; sizes.bytes().div_ceil(8)].leak();
    // SAFETY: the block is leaked, it has `sizes.bytes()` bytes, and nothing else accesses it.
    let memory = unsafe { VmapMemory::place(block.as_mut_ptr().cast(), sizes) };
    let budget = Budget { pages: 512, areas: 512 };
    let refused = Vmap::new(ElsewhereTables(&guest), memory, UnmapMode::Lazy, budget).err();
    assert_eq!(refused, Some(VmapError::WrongMemory { pages: 512, prepared: 511 }));
}

/// The tables of a guest's areas, at a false address.
struct ElsewhereTables<'g>(&'g FakeGuest);

// SAFETY: the entries are those of the guest's tables. No test accesses memory at the false addresses.
unsafe impl AreaTables for ElsewhereTables<'_> {
    type Xen = FakeXen;

    fn xen(&self) -> &FakeXen {
        self.0.xen()
    }

    fn flushes(&self) -> &FlushClock {
        self.0.areas().tables().flushes()
    }

    fn gfn(&self, pfn: Pfn) -> Option<Gfn> {
        self.0.areas().tables().gfn(pfn)
    }

    fn base(&self) -> VirtAddr {
        self.0.areas().tables().base() + (1_u64 << 30)
    }

    fn pages(&self) -> u32 {
        self.0.areas().tables().pages()
    }

    fn entry(&self, page: u32) -> AreaEntry<'_> {
        self.0.areas().tables().entry(page)
    }
}

#[test]
fn an_area_of_another_stretch_is_refused_even_if_its_numbers_are_the_same() {
    let guest = guest(AreaConfig::lazy(512));
    let sizes = VmapSizes { frames: 2048, pages: 512, areas: 512 };
    let block = vec![0_u64; sizes.bytes().div_ceil(8)].leak();
    // SAFETY: the block is leaked, it has `sizes.bytes()` bytes, and nothing else accesses it.
    let memory = unsafe { VmapMemory::place(block.as_mut_ptr().cast(), sizes) };
    let budget = Budget { pages: 512, areas: 512 };
    let elsewhere = Vmap::new(ElsewhereTables(&guest), memory, UnmapMode::Lazy, budget).unwrap();
    let area = vmap(&guest, 300, 1, "here");
    // SAFETY: nothing frees or exchanges the frame until the area is unmapped.
    let other = unsafe { elsewhere.vmap([Pfn::new(301)], RW, "there") }.unwrap();
    let Err(VmapError::UnknownArea(area)) = elsewhere.vunmap(area) else {
        panic!("`vunmap` accepted an area of another stretch")
    };
    assert_eq!(elsewhere.stats().live, AreaCount { areas: 1, pages: 1 });
    elsewhere.vunmap(other).unwrap();
    guest.areas().vunmap(area).unwrap();
}

/// Fails hypercall 1, 2, … of the operations on areas, until all were refused once.
#[test]
fn no_refusal_by_xen_loses_an_entry_or_an_address() {
    let mut cases = 0;
    for config in [AreaConfig::lazy(1024), AreaConfig::sync(1024)] {
        for errno in [XenErrno::EINVAL, XenErrno::EPERM, XenErrno::ENOMEM, XenErrno::EBUSY] {
            for call in 1.. {
                let guest = guest(config);
                let standing = vmap(&guest, 400, 3, "standing");
                guest.xen().arm(Fault::refuse(call, errno));
                // The area has more pages than a table has entries, so each operation makes several
                // calls.
                let area = guest.vmap(frames(600, 700), RW, "area");
                if let Ok(area) = area {
                    let _refused = guest.areas().vunmap(area);
                }
                let _refused = guest.areas().purge(&guest.run(600, 350), Flush::Inhibit);
                let _refused = guest.areas().purge_all(Flush::Now);
                let hit = guest.xen().disarm() > 0;
                // The next purge repairs the state after every failure.
                guest.areas().purge_all(Flush::Now).unwrap();
                let live = AreaCount { areas: 1, pages: 3 };
                let stats = VmapStats { live, free_pages: 1023 - 4, ..VmapStats::default() };
                assert_eq!(guest.areas().stats(), stats, "{config:?} call {call} {errno}");
                assert_eq!(guest.read_at(1, standing.address()), 0);
                for n in 0..1024 {
                    let address = guest.areas().tables().address(n);
                    let of_standing = (standing.address()..page(&standing, 3)).contains(&address);
                    assert_eq!(guest.is_mapped(address), of_standing, "page {n}");
                }
                guest.check_whole();
                cases += 1;
                if !hit {
                    break;
                }
            }
        }
    }
    println!("vmap: {cases} cases of a hypercall that the model refused, as expected");
    assert!(cases > 30);
}
