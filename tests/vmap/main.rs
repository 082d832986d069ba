//! Virtual areas on the model hypervisor: the mappings, the leftovers and the purge.
//!
//! The tests show [S2](xen_contig::rules#S2). Built with and without the feature `vmap-sync`, they show
//! [S6](xen_contig::rules#S6).

mod refusals;

use fake_xen::{AreaConfig, Asked, FakeGuest, Fault, GuestBuilder, Logged};
use hypercall::ops::MmuExtKind;
use hypercall::{VirtAddr, XenErrno};
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeError};
use xen_contig::paging::Holder;
use xen_contig::vmap::{
    Area, AreaCount, Budget, Flush, Protection, Purged, UnmapMode, VmapError, VmapStats,
};

const RW: Protection = Protection::ReadWrite;

fn guest(config: AreaConfig) -> FakeGuest {
    GuestBuilder::new(2048).areas(config).build()
}

fn frames(first: u64, count: u64) -> impl Iterator<Item = Pfn> + Clone {
    (first..first + count).map(Pfn::new)
}

fn vmap(guest: &FakeGuest, first: u64, count: u64, name: &'static str) -> Area {
    guest.vmap(frames(first, count), RW, name).unwrap()
}

fn page(area: &Area, page: u64) -> VirtAddr {
    area.address() + page * 4096
}

/// Returns the hypercalls that `act` makes.
fn calls(guest: &FakeGuest, act: impl FnOnce()) -> Vec<Asked> {
    guest.xen().take_log();
    act();
    guest.xen().take_log().into_iter().map(|Logged { asked, .. }| asked).collect()
}

fn flushes(calls: &[Asked]) -> usize {
    calls.iter().filter(|call| call.flushes()).count()
}

const FLUSH_ALL: MmuExtKind = MmuExtKind::TlbFlushAll;

#[test]
fn an_area_maps_its_frames_and_no_others() {
    for config in [AreaConfig::lazy(512), AreaConfig::sync(512)] {
        let guest = guest(config);
        // The frames are out of order, and one of them is there twice.
        let scattered = [700, 300, 301, 700].map(Pfn::new);
        let area = guest.vmap(scattered, RW, "scattered").unwrap();
        let other = vmap(&guest, 302, 2, "other");
        for (index, pfn) in scattered.into_iter().enumerate() {
            guest.write(0, pfn, 5, 0x100 + index as u64);
            assert_eq!(guest.read_at(1, page(&area, index as u64) + 40), 0x100 + index as u64);
        }
        guest.write_at(0, page(&area, 3), 77);
        assert_eq!(guest.read_at(1, page(&area, 0)), 77, "two addresses map the same frame");
        assert_eq!((area.pages(), area.len()), (4, 4 * 4096));
        assert!(!guest.is_mapped(page(&area, 4)), "a guard page follows the area");
        assert!(other.address() >= page(&area, 5) && !guest.is_mapped(page(&other, 2)));
        let mut seen = Vec::new();
        guest.areas().aliases(Pfn::new(700), |alias| seen.push((alias.address, alias.name)));
        seen.sort();
        assert_eq!(seen, [(page(&area, 0), "scattered"), (page(&area, 3), "scattered")]);
        guest.areas().vunmap(area).unwrap();
        guest.areas().vunmap(other).unwrap();
        guest.areas().purge_all(Flush::Now).unwrap();
        assert_eq!(guest.areas().stats(), VmapStats { free_pages: 511, ..VmapStats::default() });
        guest.check_whole();
    }
}

#[test]
fn a_read_only_area_may_map_a_page_table() {
    let guest = guest(AreaConfig::lazy(512));
    // The model's page tables are the guest's first frames.
    let table = Pfn::new(0);
    let refused = guest.vmap([table], RW, "table");
    assert!(matches!(refused, Err(VmapError::Refused { pfn, .. }) if pfn == table));
    let area = guest.vmap([table], Protection::ReadOnly, "table").unwrap();
    assert!(guest.is_mapped(area.address()));
    guest.areas().vunmap(area).unwrap();
}

#[test]
fn a_lazy_unmap_makes_no_call_and_a_sync_unmap_one_flush() {
    let lazy = guest(AreaConfig::lazy(512));
    let area = vmap(&lazy, 300, 8, "ring");
    let first = area.address();
    assert_eq!(calls(&lazy, || lazy.areas().vunmap(area).unwrap()), []);
    assert!(lazy.is_mapped(first));
    assert_eq!(lazy.areas().stats().leftover, AreaCount { areas: 1, pages: 8 });

    let sync = guest(AreaConfig::sync(512));
    let area = vmap(&sync, 300, 8, "ring");
    let first = area.address();
    let made = calls(&sync, || sync.areas().vunmap(area).unwrap());
    assert_eq!(made, [Asked::MmuUpdate { updates: 8 }, Asked::MmuExt(vec![FLUSH_ALL])]);
    assert!(!sync.is_mapped(first));
    assert_eq!(sync.areas().stats(), VmapStats { free_pages: 511, ..VmapStats::default() });
}

#[test]
fn a_purge_removes_the_aliases_of_its_frames_and_flushes_nothing() {
    let guest = guest(AreaConfig::lazy(1024));
    let (one, two, apart) =
        (vmap(&guest, 300, 16, "one"), vmap(&guest, 308, 16, "two"), vmap(&guest, 400, 4, "apart"));
    let addresses = [&one, &two, &apart].map(Area::address);
    [one, two, apart].into_iter().for_each(|area| guest.areas().vunmap(area).unwrap());

    // Frames 308 to 315 are in both areas.
    let run = guest.run(308, 8);
    let made = calls(&guest, || {
        let purged = guest.areas().purge(&run, Flush::Inhibit).unwrap();
        assert_eq!(purged, Purged { aliases: 16, areas: 0, flushed: false });
    });
    assert_eq!(made, [Asked::MmuUpdate { updates: 16 }]);
    let mapped = |area: usize, pages: u64| -> Vec<bool> {
        (0..pages).map(|page| guest.is_mapped(addresses[area] + page * 4096)).collect()
    };
    assert_eq!(mapped(0, 16), [[true; 8], [false; 8]].concat());
    assert_eq!(mapped(1, 16), [[false; 8], [true; 8]].concat());
    assert_eq!(mapped(2, 4), [true; 4]);
    // A second purge finds nothing to do.
    assert_eq!(calls(&guest, || _ = guest.areas().purge(&run, Flush::Inhibit).unwrap()), []);
    // `Flush::Now` also flushes.
    let made = calls(&guest, || {
        let purged = guest.areas().purge(&guest.run(300, 8), Flush::Now).unwrap();
        assert_eq!(purged, Purged { aliases: 8, areas: 1, flushed: true });
    });
    assert_eq!(made, [Asked::MmuUpdate { updates: 8 }, Asked::MmuExt(vec![FLUSH_ALL])]);
}

#[test]
fn the_cost_of_a_purge_does_not_depend_on_other_leftovers() {
    let log_with = |unrelated: u64| {
        let guest = GuestBuilder::new(4096).areas(AreaConfig::lazy(1 << 17)).build();
        for _ in 0..unrelated / 250 {
            let area = vmap(&guest, 1000, 250, "unrelated");
            guest.areas().vunmap(area).unwrap();
        }
        let area = vmap(&guest, 2048, 512, "ours");
        guest.areas().vunmap(area).unwrap();
        assert_eq!(guest.areas().stats().leftover.pages as u64, unrelated + 512);
        let run = guest.run(2048, 512);
        calls(&guest, || {
            let purged = guest.areas().purge(&run, Flush::Inhibit).unwrap();
            assert_eq!((purged.aliases, purged.areas), (512, 1));
        })
    };
    let alone = log_with(0);
    assert_eq!(alone, [Asked::MmuUpdate { updates: 512 }]);
    assert_eq!(log_with(100_000), alone);
}

#[test]
fn a_purge_reaches_every_frame_and_every_alias_of_a_large_run() {
    let guest = GuestBuilder::new(4096).areas(AreaConfig::lazy(1 << 13)).build();
    // The run has more frames than a table has entries. Its first frames have more aliases than fit in
    // one call.
    let large = vmap(&guest, 1024, 1500, "large");
    let again: Vec<Area> = (0..150).map(|_| vmap(&guest, 1024, 7, "again")).collect();
    [large].into_iter().chain(again).for_each(|area| guest.areas().vunmap(area).unwrap());
    let made = calls(&guest, || {
        let purged = guest.areas().purge(&guest.run(1024, 1500), Flush::Inhibit).unwrap();
        assert_eq!(purged, Purged { aliases: 1500 + 150 * 7, areas: 151, flushed: false });
    });
    let updates = made.iter().map(|call| match call {
        Asked::MmuUpdate { updates } => *updates as u64,
        other => panic!("{other:?}"),
    });
    assert_eq!(updates.sum::<u64>(), 1500 + 150 * 7);
    assert_eq!(guest.areas().stats().leftover, AreaCount::default());
}

/// Exchanges a run, as a driver's allocation does.
fn exchange(guest: &FakeGuest, first: u64, order: u32) -> Result<(), ExchangeError> {
    let accounts = Accounts::new();
    let limit = Order::new(9).unwrap();
    let exchanger = guest.exchanger(&accounts, limit);
    let run = guest.run(first, 1 << order);
    let mut list = vec![0; 1 << order];
    let result = exchanger.acquire(run, AddressBits::UNLIMITED, &mut list);
    result.map(|_| ()).map_err(|failure| failure.error)
}

#[test]
fn an_exchange_purges_first_and_flushes_once() {
    let guest = guest(AreaConfig::lazy(512));
    let area = vmap(&guest, 512, 64, "ring");
    let first = area.address();
    guest.areas().vunmap(area).unwrap();
    let made = calls(&guest, || exchange(&guest, 512, 6).unwrap());
    assert_eq!(flushes(&made), 1);
    assert_eq!(made[0], Asked::MmuUpdate { updates: 64 }, "the first call removes the aliases");
    assert_eq!(made[1], Asked::Multicall { entries: 3 });
    assert_eq!(made[2], Asked::MmuUpdate { updates: 64 }, "the linear mapping is cleared");
    assert_eq!(made[3], Asked::MmuExt(vec![FLUSH_ALL]));
    assert!(made[4].is_exchange() && !guest.is_mapped(first));
    // The flush also covers the area's addresses, so they are reused without another one.
    let made = calls(&guest, || {
        let area = vmap(&guest, 900, 64, "next");
        assert_eq!(area.address(), first);
        assert_eq!(guest.read_at(1, area.address()), 0);
    });
    assert_eq!(flushes(&made), 0);
}

#[test]
fn an_area_in_use_is_named_and_stays_mapped() {
    let guest = guest(AreaConfig::lazy(512));
    let (dead, live) = (vmap(&guest, 512, 8, "dead"), vmap(&guest, 514, 2, "net-rx"));
    let address = live.address();
    guest.areas().vunmap(dead).unwrap();
    let (pfn, mfn) = (Pfn::new(514), guest.mfn(Pfn::new(514)));
    let holder = Holder::Area { address, name: "net-rx" };
    let made = calls(&guest, || {
        let error = exchange(&guest, 512, 3).unwrap_err();
        assert_eq!(error, ExchangeError::FrameBusy { pfn, mfn, holder });
        let text = error.to_string();
        let mfn = mfn.unwrap();
        let expected = format!(
            "frame busy: pfn {pfn} mfn {mfn} mapped at {:#x} by vmap area \"net-rx\", which is in \
             use. Unmap it, or keep such frames out of the allocator",
            address.as_u64()
        );
        assert_eq!(text, expected);
    });
    assert!(!made.iter().any(Asked::is_exchange), "Xen would refuse this exchange: {made:?}");
    let all = guest.areas().purge_all(Flush::Now).unwrap();
    assert_eq!(all.aliases, 8, "the purge removes the leftovers alone");
    assert_eq!(guest.read_at(1, address), 0);
    guest.areas().vunmap(live).unwrap();
    assert_eq!(exchange(&guest, 512, 3), Ok(()));
    guest.check_whole();
}

#[test]
fn a_leftover_that_the_purge_could_not_remove_is_named() {
    let guest = guest(AreaConfig::lazy(512));
    let area = vmap(&guest, 515, 1, "left");
    let address = area.address();
    guest.areas().vunmap(area).unwrap();
    // Xen refuses to remove the entry, so the purge fails.
    guest.xen().arm(Fault::refuse(1, XenErrno::ENOMEM));
    let error = exchange(&guest, 512, 3).unwrap_err();
    guest.xen().disarm();
    let holder = Holder::Leftover { address, name: "left" };
    let (pfn, mfn) = (Pfn::new(515), guest.mfn(Pfn::new(515)));
    assert_eq!(error, ExchangeError::FrameBusy { pfn, mfn, holder });
    assert_eq!(exchange(&guest, 512, 3), Ok(()), "the next purge tries again");
}

#[test]
fn no_address_is_reused_before_a_flush_covers_it() {
    let guest = guest(AreaConfig::lazy(512));
    // The area takes all addresses except the guard pages.
    let area = vmap(&guest, 300, 510, "all");
    guest.areas().vunmap(area).unwrap();
    assert_eq!(guest.areas().purge(&guest.run(300, 510), Flush::Inhibit).unwrap().areas, 1);
    let stats = guest.areas().stats();
    assert_eq!((stats.retired, stats.free_pages), (AreaCount { areas: 1, pages: 510 }, 0));
    // The model fails the test at an access for which a TLB holds a stale translation.
    let made = calls(&guest, || {
        let area = vmap(&guest, 1000, 10, "next");
        assert_eq!(guest.read_at(1, area.address()), 0);
    });
    assert_eq!(made, [Asked::MmuExt(vec![FLUSH_ALL]), Asked::MmuUpdate { updates: 10 }]);
}

#[test]
fn a_holder_in_use_is_named_before_a_leftover_and_the_mode_can_change() {
    let guest = guest(AreaConfig::lazy(512));
    let areas = guest.areas();
    let mut ends = Vec::new();
    // The order of mapping does not matter.
    for names in [["live", "left"], ["left", "live"]] {
        for area in names.map(|name| (name, vmap(&guest, 300, 1, name))) {
            match area {
                ("left", area) => areas.vunmap(area).unwrap(),
                (_, area) => ends.push(area),
            }
        }
        let holder = areas.holder(Pfn::new(300));
        assert!(matches!(holder, Some(Holder::Area { name: "live", .. })), "{holder:?}");
        areas.set_mode(UnmapMode::Sync);
        assert_eq!(areas.mode(), UnmapMode::Sync);
        let made = calls(&guest, || ends.drain(..).for_each(|area| areas.vunmap(area).unwrap()));
        assert_eq!(flushes(&made), 1);
        areas.set_mode(UnmapMode::Lazy);
        assert!(matches!(areas.holder(Pfn::new(300)), Some(Holder::Leftover { name: "left", .. })));
        areas.purge_all(Flush::Now).unwrap();
    }
}

#[test]
fn leftover_addresses_are_purged_when_they_are_needed() {
    let guest = guest(AreaConfig::lazy(512));
    let area = vmap(&guest, 300, 400, "large");
    guest.areas().vunmap(area).unwrap();
    let made = calls(&guest, || drop(vmap(&guest, 300, 400, "again")));
    assert_eq!(made[0], Asked::MmuUpdate { updates: 400 });
    assert_eq!(made[1], Asked::MmuExt(vec![FLUSH_ALL]));
    assert_eq!(made[2], Asked::MmuUpdate { updates: 400 });
    assert_eq!(made.len(), 3);
}

#[test]
fn past_the_budget_all_leftovers_are_purged_without_a_flush() {
    for budget in [Budget { pages: 24, areas: 100 }, Budget { pages: 1000, areas: 3 }] {
        let guest = guest(AreaConfig { budget, ..AreaConfig::lazy(512) });
        let areas: Vec<Area> = (0..4).map(|n| vmap(&guest, 300 + 8 * n, 8, "area")).collect();
        let made = calls(&guest, || {
            areas.into_iter().for_each(|area| guest.areas().vunmap(area).unwrap());
        });
        // The first three areas are within the budget. The fourth exceeds it, in pages or in areas.
        assert_eq!(made, [Asked::MmuUpdate { updates: 32 }]);
        assert_eq!(guest.areas().stats().retired, AreaCount { areas: 4, pages: 32 });
    }
}

#[test]
fn a_translated_guest_maps_its_own_frame_numbers_without_a_hypercall() {
    let guest = GuestBuilder::new(2048).translated().areas(AreaConfig::lazy(512)).build();
    let made = calls(&guest, || {
        let area = vmap(&guest, 300, 8, "ring");
        // Present, writable, accessed and dirty, not to be executed.
        let entry = guest.areas().tables().plain_entry(0);
        assert_eq!(entry, Some(1 << 63 | 300 << 12 | 0x63));
        guest.areas().vunmap(area).unwrap();
        let purged = guest.areas().purge(&guest.run(300, 8), Flush::Inhibit).unwrap();
        assert_eq!((purged.aliases, purged.areas), (8, 1));
    });
    assert_eq!(made, []);
    // Xen flushes for a translated guest too, so no vCPU interrupts another.
    let made = calls(&guest, || _ = guest.areas().purge_all(Flush::Now).unwrap());
    assert_eq!(made, [Asked::Other("hvm_op")]);
    assert_eq!(guest.areas().stats().free_pages, 511);
}

#[test]
fn the_default_follows_the_feature() {
    let expected = if cfg!(feature = "vmap-sync") { UnmapMode::Sync } else { UnmapMode::Lazy };
    assert_eq!(UnmapMode::default(), expected);
}
