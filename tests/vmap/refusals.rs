//! What is refused, by the areas or by Xen, and what is left then.

use fake_xen::{AreaConfig, Builder, FakeGuest, FakeXen, Fault};
use hypercall::{VirtAddr, XenErrno};
use xen_contig::addr::{Gfn, Pfn};
use xen_contig::paging::{FlushClock, Held, Holder};
use xen_contig::vmap::{
    AreaTables, Budget, Count, Entry, Flush, Memory, Mode, PurgeError, Sizes, Stats, UnmapError,
    Vmap, VmapError,
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
        let refused = PurgeError::Flush { errno: XenErrno::EPERM };
        match config.mode {
            Mode::Lazy => assert_eq!((unmapped, purged), (Ok(()), Err(refused))),
            // What the caller is told. The flush after it goes well, so there is another area.
            Mode::Sync => {
                assert_eq!(unmapped, Err(UnmapError::Purge(refused).to_string()));
                assert_eq!(purged.map(|purged| purged.flushed), Ok(true));
                continue;
            }
        }
        assert_eq!(guest.areas().stats().retired, Count { areas: 1, pages: 8 });
    }
}

#[test]
fn what_could_not_be_mapped_as_a_whole_is_not_mapped_at_all() {
    let guest = guest(AreaConfig::lazy(512));
    // A page table can't be written to.
    let frames = [Pfn::new(300), Pfn::new(0)];
    let refused = guest.areas().vmap(frames, RW, "half");
    assert!(matches!(refused, Err(VmapError::Refused { pfn, .. }) if pfn == frames[1]));
    let stats = guest.areas().stats();
    assert_eq!((stats.live, stats.leftover), (Count::default(), Count::default()));
    assert!(!guest.is_mapped(guest.areas().tables().base()));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let guest = guest(AreaConfig { areas: 2, ..AreaConfig::lazy(512) });
    let areas = guest.areas();
    assert_eq!(areas.vmap([], RW, "none"), Err(VmapError::Empty));
    // Its guard page and the last page of the stretch are nobody's.
    let many = VmapError::TooLarge { pages: 511, limit: 510 };
    assert_eq!(areas.vmap(frames(300, 511), RW, "many"), Err(many));
    areas.vunmap(vmap(&guest, 300, 510, "all")).unwrap();
    areas.purge_all(Flush::Now).unwrap();
    let beyond = Pfn::new(2048);
    assert_eq!(areas.vmap([beyond], RW, "beyond"), Err(VmapError::NotPopulated { pfn: beyond }));
    let huge = Pfn::new(1 << 40);
    assert_eq!(areas.vmap([huge], RW, "huge"), Err(VmapError::NotPopulated { pfn: huge }));
    let (one, two) = (vmap(&guest, 300, 1, "one"), vmap(&guest, 301, 1, "two"));
    let full = VmapError::NoSpace { pages: 1, free: 507, areas: 2 };
    assert_eq!(areas.vmap([Pfn::new(302)], RW, "three"), Err(full));
    areas.vunmap(one).unwrap();
    let three = vmap(&guest, 302, 1, "three");
    let elsewhere =
        FakeGuest::areas(&Builder::new(2048).areas(AreaConfig::lazy(512)).build()).vunmap(two);
    assert!(matches!(elsewhere, Err(UnmapError::Unknown(_))));
    areas.vunmap(three).unwrap();
}

/// The tables of a guest's areas, said to be elsewhere.
struct Elsewhere<'g>(&'g FakeGuest);

// SAFETY: the test maps nothing by them.
unsafe impl AreaTables for Elsewhere<'_> {
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

    fn entry(&self, page: u32) -> Entry<'_> {
        self.0.areas().tables().entry(page)
    }
}

#[test]
fn an_area_of_another_stretch_is_handed_back_even_if_its_numbers_are_the_same() {
    let guest = guest(AreaConfig::lazy(512));
    let sizes = Sizes { frames: 2048, pages: 512, areas: 512 };
    let block = vec![0_u64; sizes.bytes().div_ceil(8)].leak();
    // SAFETY: the block is leaked, and nobody else's.
    let memory = unsafe { Memory::place(block.as_mut_ptr().cast(), sizes) };
    let budget = Budget { pages: 512, areas: 512 };
    let elsewhere = Vmap::new(Elsewhere(&guest), memory, Mode::Lazy, budget);
    let area = vmap(&guest, 300, 1, "here");
    let other = elsewhere.vmap([Pfn::new(301)], RW, "there").unwrap();
    let Err(UnmapError::Unknown(area)) = elsewhere.vunmap(area) else { panic!("taken") };
    assert_eq!(elsewhere.stats().live, Count { areas: 1, pages: 1 });
    elsewhere.vunmap(other).unwrap();
    guest.areas().vunmap(area).unwrap();
}

/// Fails the k-th hypercall of everything that areas do, until none is reached.
#[test]
fn no_refusal_of_xens_loses_an_entry_or_an_address() {
    let mut cases = 0;
    for config in [AreaConfig::lazy(1024), AreaConfig::sync(1024)] {
        for errno in [XenErrno::EINVAL, XenErrno::EPERM, XenErrno::ENOMEM, XenErrno::EBUSY] {
            for call in 1.. {
                let guest = guest(config);
                let standing = vmap(&guest, 400, 3, "standing");
                guest.xen().arm(Fault::refuse(call, errno));
                // More than a table's worth of pages, so more than one call each.
                let area = guest.areas().vmap(frames(600, 700), RW, "area");
                if let Ok(area) = area {
                    let _refused = guest.areas().vunmap(area);
                }
                let _refused = guest.areas().purge(&guest.run(600, 350), Flush::Inhibit);
                let _refused = guest.areas().purge_all(Flush::Now);
                let hit = guest.xen().disarm() > 0;
                // Whatever failed, the next attempt puts all of it right.
                guest.areas().purge_all(Flush::Now).unwrap();
                let live = Count { areas: 1, pages: 3 };
                let stats = Stats { live, free_pages: 1023 - 4, ..Stats::default() };
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
    println!("vmap: {cases} cases of a refused hypercall");
    assert!(cases > 30);
}

#[test]
fn messages_name_what_they_are_about() {
    let held = Held { pfn: Pfn::new(7), holder: Holder::Unknown };
    for (message, words) in [
        (VmapError::TooLarge { pages: 9, limit: 8 }.to_string(), "9 pages is more than the 8"),
        (VmapError::NoSpace { pages: 5, free: 4, areas: 3 }.to_string(), "4 pages are free, 3"),
        (PurgeError::Refused { held, errno: XenErrno::EINVAL }.to_string(), "-EINVAL; pfn 0x7"),
        (PurgeError::Flush { errno: XenErrno::EPERM }.to_string(), "EPERM"),
    ] {
        assert!(message.contains(words), "{message}");
    }
}
