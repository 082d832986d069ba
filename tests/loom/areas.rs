//! Virtual areas that several vCPUs map, unmap and purge at the same time.

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

/// Purges everything, and checks that no area exists and every address is free.
fn check_empty(guest: &FakeGuest) {
    guest.areas().purge_all(Flush::Now).expect("nothing refuses a purge");
    assert_eq!(guest.areas().stats(), VmapStats { free_pages: 511, ..VmapStats::default() });
}

/// One vCPU exchanges a run that leftovers map, while another purges everything. No frame goes to Xen
/// while a page table or a TLB maps it, whichever of the two removes the entries.
#[test]
fn a_purge_of_everything_does_not_disturb_an_exchange() {
    explore(4, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a new guest has free frames");
        let first = run.first();
        // Two areas map the first frame, and one of them maps the other frame too.
        for count in [1, 2] {
            let frames = (0..count).map(|at| first.add(at));
            let area = guest.vmap(frames, RW, "ring").expect("the stretch has free addresses");
            guest.areas().vunmap(area).expect("the area belongs to this guest");
        }
        let purger = spawn(move || guest.areas().purge_all(Flush::Inhibit));
        let exchanger = guest.exchanger(platform.accounts(), Order::MAX);
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
        let extent = extent.expect("the exchange purges leftovers");
        let purged = join(purger).expect("Xen refuses nothing");
        assert!(purged.aliases <= 3, "{purged:?}");
        platform.give(exchanger.release(extent, &mut [0; 4]).expect("the machine has free frames"));
        check_empty(guest);
        scene.check_balance();
    });
}

/// One vCPU purges a run while another maps an area of it. The purge names the area, or it came first.
/// The area is complete in both cases.
#[test]
fn an_area_that_is_being_mapped_is_in_use() {
    explore(3, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a new guest has free frames");
        let first = run.first();
        let purger = spawn(move || {
            let run = guest.run(first.number(), 2);
            guest.areas().purge(&run, Flush::Inhibit).map_or(0, |purged| purged.aliases)
        });
        let area = guest.vmap(run.iter(), RW, "ring").expect("the stretch has free addresses");
        assert_eq!(join(purger), 0, "the purge removed pages of an area in use");
        assert!(guest.is_mapped(area.address()) && guest.is_mapped(area.address() + 4096_u64));
        guest.areas().vunmap(area).expect("the area belongs to this guest");
        platform.give(run);
        check_empty(guest);
        scene.check_balance();
    });
}

/// Xen refuses one call while two vCPUs remove the same entry. If a purge returns no error, its frames
/// have no alias. This includes the aliases that follow, in the list, an entry that is already removed.
#[test]
fn a_purge_without_an_error_leaves_no_alias() {
    explore(3, || {
        let scene = LoomScene::with_areas(Retain::default(), config(UnmapMode::Lazy, GENEROUS));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a new guest has free frames");
        let first = run.first();
        let area = guest.vmap(run.iter(), RW, "ring").expect("the stretch has free addresses");
        guest.areas().vunmap(area).expect("the area belongs to this guest");
        // Xen refuses the second call, whichever vCPU makes it.
        guest.xen().arm(Fault::refuse(2, XenErrno::ENOMEM));
        let other = spawn(move || {
            let one = guest.run(first.number(), 1);
            guest.areas().purge(&one, Flush::Inhibit).is_ok()
        });
        let purged = guest.areas().purge(&run, Flush::Inhibit);
        let is_mapped = |pfn| guest.areas().holder(pfn).is_some();
        assert!(purged.is_err() || !run.iter().any(is_mapped), "{purged:?}");
        assert!(!join(other) || !is_mapped(first));
        guest.xen().disarm();
        platform.give(run);
        check_empty(guest);
        scene.check_balance();
    });
}

/// Two vCPUs need an area each, and there are records for two areas. A vCPU waits for an area that the
/// other is removing, so neither gets an error for missing space.
#[test]
fn a_mapping_waits_for_an_area_that_is_being_removed() {
    explore(2, || {
        let config = AreaConfig { areas: 2, ..config(UnmapMode::Lazy, GENEROUS) };
        let scene = LoomScene::with_areas(Retain::default(), config);
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let work = move |colour: u64| {
            let run = platform.take(1, 1).expect("a new guest has free frames");
            (0..2).for_each(|_| use_area(guest, run.first(), colour));
            platform.give(run);
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        check_empty(guest);
        scene.check_balance();
    });
}

/// Two vCPUs map, use and unmap areas of their own frames at reused addresses.
///
/// Each vCPU reaches its own frame at its addresses, by the tables and by its TLB.
fn reuse_addresses(preemptions: usize, mode: UnmapMode, budget: Budget) {
    explore(preemptions, move || {
        let scene = LoomScene::with_areas(Retain::default(), config(mode, budget));
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let work = move |colour: u64| {
            let run = platform.take(2, 1).expect("a new guest has free frames");
            for pfn in run.iter() {
                use_area(guest, pfn, colour);
                guest.areas().purge(&run, Flush::Now).expect("the area is unmapped");
            }
            platform.give(run);
        };
        let other = spawn(move || work(1));
        work(2);
        join(other);
        check_empty(guest);
        scene.check_balance();
    });
}

fn use_area(guest: &FakeGuest, pfn: Pfn, colour: u64) {
    guest.fill(pfn, colour);
    let area = guest.vmap([pfn], RW, "ring").expect("the stretch has free addresses");
    assert_eq!(guest.read_at(0, area.address()), colour);
    guest.write_at(0, area.address(), colour + 10);
    assert_eq!(guest.read(0, pfn, 0), colour + 10);
    guest.areas().vunmap(area).expect("the area belongs to this guest");
}

#[test]
fn lazy_areas_do_not_share_addresses() {
    reuse_addresses(3, UnmapMode::Lazy, GENEROUS);
}

#[test]
fn areas_past_the_budget_do_not_share_addresses() {
    reuse_addresses(2, UnmapMode::Lazy, Budget { pages: 0, areas: 0 });
}

#[test]
fn sync_areas_do_not_share_addresses() {
    reuse_addresses(2, UnmapMode::Sync, GENEROUS);
}
