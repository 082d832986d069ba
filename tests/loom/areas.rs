//! Virtual areas: made, ended and purged by several vCPUs at the same time.

use fake_xen::{AreaConfig, FakeGuest, Fault};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::dma::Retain;
use xen_contig::platform::Platform;
use xen_contig::vmap::{Budget, Flush, Protection, UnmapMode, VmapStats};

use crate::scene::{LoomScene, explore, join, spawn};

const RW: Protection = Protection::ReadWrite;

fn config(mode: UnmapMode, budget: Budget) -> AreaConfig {
    AreaConfig { areas: 6, mode, budget, ..AreaConfig::lazy(512) }
}

const GENEROUS: Budget = Budget { pages: 512, areas: 6 };

/// Nothing is left, and every address is free again.
fn is_empty(guest: &FakeGuest) {
    guest.areas().purge_all(Flush::Now).expect("leftovers that nothing holds");
    assert_eq!(guest.areas().stats(), VmapStats { free_pages: 511, ..VmapStats::default() });
}

/// A run whose frames are left behind in areas is exchanged while somebody else purges everything:
/// whoever drops an entry, no frame is given up before it is gone from tables and TLBs.
#[test]
fn a_purge_for_an_exchange_and_one_of_everything_meet() {
    explore(4, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a fresh guest");
        let first = run.first();
        // Two areas over the first frame, one of which has the other frame, too.
        for count in [1, 2] {
            let frames = (0..count).map(|at| first.add(at));
            let area = guest.vmap(frames, RW, "ring").expect("room");
            guest.areas().vunmap(area).expect("an area of these books");
        }
        let purger = spawn(move || guest.areas().purge_all(Flush::Inhibit));
        let exchanger = guest.exchanger(platform.accounts(), Order::MAX);
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
        let extent = extent.expect("leftovers do not hold a frame");
        let purged = join(purger).expect("nothing to refuse");
        assert!(purged.aliases <= 3, "{purged:?}");
        platform.give(exchanger.release(extent, &mut [0; 4]).expect("a machine with room"));
        is_empty(guest);
        scene.is_balanced();
    });
}

/// A run is purged while an area is made of it: either the purge is told who uses it, or it came
/// first. The area is whole in any case.
#[test]
fn an_area_that_is_being_made_is_in_use() {
    explore(3, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a fresh guest");
        let first = run.first();
        let purger = spawn(move || {
            let run = guest.run(first.number(), 2);
            guest.areas().purge(&run, Flush::Inhibit).map_or(0, |purged| purged.aliases)
        });
        let area = guest.vmap(run.iter(), RW, "ring").expect("room");
        assert_eq!(join(purger), 0, "an area in use lost pages");
        assert!(guest.is_mapped(area.address()) && guest.is_mapped(area.address() + 4096_u64));
        guest.areas().vunmap(area).expect("an area of these books");
        platform.give(run);
        is_empty(guest);
        scene.is_balanced();
    });
}

/// Xen refuses one call while two vCPUs drop the same entry. Whoever is told of no error has none of
/// its frames' aliases left: not those either that stood in a list behind one that was gone already.
#[test]
fn a_refusal_of_what_is_gone_already_leaves_nothing_behind() {
    explore(3, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a fresh guest");
        let first = run.first();
        let area = guest.vmap(run.iter(), RW, "ring").expect("room");
        guest.areas().vunmap(area).expect("an area of these books");
        // The call of whoever comes second.
        guest.xen().arm(Fault::refuse(2, XenErrno::ENOMEM));
        let other = spawn(move || {
            let one = guest.run(first.number(), 1);
            guest.areas().purge(&one, Flush::Inhibit).is_ok()
        });
        let purged = guest.areas().purge(&run, Flush::Inhibit);
        let is_left = |pfn| guest.areas().holder(pfn).is_some();
        assert!(purged.is_err() || !run.iter().any(is_left), "{purged:?}");
        assert!(!join(other) || !is_left(first));
        guest.xen().disarm();
        platform.give(run);
        is_empty(guest);
        scene.is_balanced();
    });
}

/// Two vCPUs that need an area each, with records for no more than two: what the other has ended and
/// is just dropping is waited for, so none is told that there is no room.
#[test]
fn there_is_room_as_long_as_not_all_is_in_use() {
    explore(2, || {
        let config = AreaConfig { areas: 2, ..config(UnmapMode::Lazy, GENEROUS) };
        let scene = LoomScene::with_areas(Retain::default(), config);
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let work = move |colour: u64| {
            let run = platform.take(1, 1).expect("a fresh guest");
            (0..2).for_each(|_| use_area(guest, run.first(), colour));
            platform.give(run);
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        is_empty(guest);
        scene.is_balanced();
    });
}

/// Two vCPUs make, use and end areas over frames of their own, and have addresses reused: each finds
/// its own frame at its addresses, in the tables and in its TLB.
fn storm(preemptions: usize, mode: UnmapMode, budget: Budget) {
    explore(preemptions, move || {
        let scene = LoomScene::with_areas(Retain::default(), config(mode, budget));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let work = move |colour: u64| {
            let run = platform.take(2, 1).expect("a fresh guest");
            for pfn in run.iter() {
                use_area(guest, pfn, colour);
                guest.areas().purge(&run, Flush::Now).expect("ended by its owner");
            }
            platform.give(run);
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        is_empty(guest);
        scene.is_balanced();
    });
}

fn use_area(guest: &FakeGuest, pfn: Pfn, colour: u64) {
    guest.fill(pfn, colour);
    let area = guest.vmap([pfn], RW, "ring").expect("room");
    assert_eq!(guest.read_at(0, area.address()), colour);
    guest.write_at(0, area.address(), colour + 10);
    assert_eq!(guest.read(0, pfn, 0), colour + 10);
    guest.areas().vunmap(area).expect("an area of these books");
}

#[test]
fn lazy_areas_keep_apart() {
    storm(3, UnmapMode::Lazy, GENEROUS);
}

#[test]
fn areas_past_the_budget_keep_apart() {
    storm(2, UnmapMode::Lazy, Budget { pages: 0, areas: 0 });
}

#[test]
fn sync_areas_keep_apart() {
    storm(2, UnmapMode::Sync, GENEROUS);
}
