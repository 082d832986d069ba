//! Memory that is given back later, by whoever finds the time.

use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Constraints, GiveBack, GiveBackReport};

use crate::scene::{LoomScene, explore, join, spawn};

const PAGE: u64 = PAGE_SIZE as u64;

/// One drops a buffer while two give back what waits: every run goes back once, and what the reports
/// and the figures say adds up.
#[test]
fn what_waits_is_given_back_once() {
    explore(2, || {
        let scene = LoomScene::new(GiveBack::Later);
        let allocator = scene.allocator.get();
        let any = Constraints::default();
        let [one, other] =
            [2, 4].map(|pages| allocator.alloc_coherent(pages * PAGE, &any).unwrap());
        drop(one);
        let give = move || allocator.give_back_waiting();
        let giver = spawn(give);
        let dropper = spawn(move || drop(other));
        let mut reports = vec![give(), join(giver)];
        join(dropper);
        reports.push(give());
        let given = reports.iter().map(|report| report.given).sum::<u64>();
        assert!(reports.iter().all(|report| (report.kept, report.error) == (0, None)));
        let stats = allocator.stats();
        assert_eq!((given, stats.given_back, stats.waiting, stats.refusals), (6, 6, 0, 0));
        assert_eq!((stats.exchanged, stats.below_4g, stats.below_16m), (2, 0, 0));
        assert_eq!(give(), GiveBackReport::default());
        scene.is_balanced();
    });
}

/// Xen takes nothing: runs that two carry back and forth at the same time wait again, all of them.
#[test]
fn what_xen_does_not_take_waits_again() {
    explore(2, || {
        let scene = LoomScene::new(GiveBack::Later);
        let (allocator, any) = (scene.allocator.get(), Constraints::default());
        let buffers = [2, 2].map(|pages| allocator.alloc_coherent(pages * PAGE, &any).unwrap());
        drop(buffers);
        scene.guest.exhaust_but(0);
        let give = move || allocator.give_back_waiting();
        let giver = spawn(give);
        let reports = [give(), join(giver)];
        assert!(reports.iter().all(|report| report.given == 0));
        let refused = reports.iter().map(|report| report.kept).sum::<u64>();
        assert!((4..=8).contains(&refused), "{refused} frames");
        let stats = allocator.stats();
        assert_eq!((stats.waiting, stats.given_back, stats.refusals), (4, 0, refused / 2));
        scene.guest.relieve();
        assert_eq!(give().given, 4);
        scene.is_balanced();
    });
}

/// Buffers that come and go on two vCPUs, given back at once: no figure is lost.
#[test]
fn the_figures_add_up() {
    explore(2, || {
        let scene = LoomScene::new(GiveBack::AtOnce);
        let (allocator, any) = (scene.allocator.get(), Constraints::default());
        let work = move || drop(allocator.alloc_coherent(2 * PAGE, &any).unwrap());
        let other = spawn(work);
        work();
        join(other);
        let stats = allocator.stats();
        assert_eq!((stats.found + stats.exchanged, stats.refusals, stats.waiting), (2, 0, 0));
        assert_eq!(stats.given_back, 2 * stats.exchanged);
        assert_eq!((stats.below_4g, stats.below_16m), (0, 0));
        scene.is_balanced();
    });
}
