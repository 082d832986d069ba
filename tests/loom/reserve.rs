//! The reserve, which several vCPUs use at the same time.

use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Allocator, Constraints, Retain};

use crate::scene::{Kernel, LoomScene, explore, join, spawn};

const PAGE: u64 = PAGE_SIZE as u64;

fn scene() -> LoomScene {
    LoomScene::new(Retain::default())
}

fn alloc_and_drop(allocator: &Allocator<Kernel>, pages: u64) {
    let any = Constraints::default();
    let buffer = allocator.alloc_coherent(pages * PAGE, &any);
    drop(buffer.expect("the machine has free frames"));
}

/// Checks the figures: `served` allocations, and every frame free or in the reserve.
fn check_accounts(scene: &LoomScene, served: u64) {
    let stats = scene.allocator.stats();
    assert_eq!(scene.frames_outside_buffers(), scene.free, "{stats:?}");
    assert_eq!(stats.from_reserve + stats.adopted + stats.exchanged, served, "{stats:?}");
    assert_eq!(stats.refusals, 0, "{stats:?}");
}

/// Two vCPUs allocate while the reserve has one idle block.
#[test]
fn one_block_has_one_owner() {
    explore(2, || {
        let scene = scene();
        let allocator = scene.allocator.get();
        alloc_and_drop(allocator, 4);
        let any = Constraints::default();
        let work =
            move || allocator.alloc_coherent(4 * PAGE, &any).expect("the machine has free frames");
        let other = spawn(work);
        let (mine, theirs) = (work(), join(other));
        let first = mine.frames().first();
        assert!(theirs.frames().iter().all(|pfn| pfn != first));
        assert_ne!(mine.dma_addr(), theirs.dma_addr());
        drop((mine, theirs));
        check_accounts(&scene, 3);
        scene.check_balance();
    });
}

/// One vCPU trims all idle memory while another allocates and drops.
#[test]
fn a_trim_takes_no_block_of_a_buffer() {
    explore(2, || {
        let scene = scene();
        let allocator = scene.allocator.get();
        alloc_and_drop(allocator, 2);
        let trimmer = spawn(move || allocator.trim(u64::MAX));
        alloc_and_drop(allocator, 2);
        let report = join(trimmer);
        assert_eq!((report.error, report.quarantined), (None, 0), "{report:?}");
        check_accounts(&scene, 2);
        scene.check_balance();
    });
}

/// The kernel's shrinker frees idle memory while another vCPU grows the reserve.
///
/// The other vCPU takes frames of the kernel. Neither holds its own lock while it takes the other's.
#[test]
fn a_reclaim_and_a_growth_do_not_wait_for_each_other() {
    explore(2, || {
        let scene = scene();
        let allocator = scene.allocator.get();
        alloc_and_drop(allocator, 2);
        let shrinker = spawn(move || allocator.reclaim(u64::MAX));
        alloc_and_drop(allocator, 8);
        join(shrinker);
        check_accounts(&scene, 2);
        scene.check_balance();
    });
}

/// One vCPU drops a buffer while two trim. Every frame is returned once, and the reports and the
/// figures add up.
#[test]
fn idle_memory_is_returned_once() {
    explore(1, || {
        let scene = scene();
        let allocator = scene.allocator.get();
        let any = Constraints::default();
        let [one, other] = [2, 4].map(|pages| {
            allocator.alloc_coherent(pages * PAGE, &any).expect("the machine has free frames")
        });
        let owned = 6 + allocator.stats().idle;
        drop(one);
        let trim = move || allocator.trim(u64::MAX);
        let trimmer = spawn(trim);
        let dropper = spawn(move || drop(other));
        let mut reports = vec![trim(), join(trimmer)];
        join(dropper);
        reports.push(trim());
        assert!(reports.iter().all(|report| (report.error, report.quarantined) == (None, 0)));
        let removed = reports.iter().map(|report| report.returned + report.freed).sum::<u64>();
        let returned = reports.iter().map(|report| report.returned).sum::<u64>();
        assert_eq!((removed, returned), (owned, allocator.stats().returned));
        check_accounts(&scene, 2);
        scene.check_balance();
    });
}

/// Xen has no memory to exchange. Two vCPUs trim at the same time, and the idle memory stays.
#[test]
fn idle_memory_that_xen_refuses_is_kept() {
    explore(1, || {
        let scene = scene();
        let (allocator, any) = (scene.allocator.get(), Constraints::default());
        let buffers = [2, 2].map(|pages| {
            allocator.alloc_coherent(pages * PAGE, &any).expect("the machine has free frames")
        });
        drop(buffers);
        let idle = allocator.stats().idle;
        scene.guest.exhaust_but(0);
        let trimmer = spawn(move || allocator.trim(u64::MAX));
        let reports = [allocator.trim(u64::MAX), join(trimmer)];
        assert!(reports.iter().all(|report| report.returned == 0));
        let freed = reports.iter().map(|report| report.freed).sum::<u64>();
        let stats = allocator.stats();
        assert_eq!((stats.idle + freed, stats.returned), (idle, 0));
        let refused = reports.iter().filter(|report| report.error.is_some()).count() as u64;
        assert!(stats.refusals >= refused && refused > 0, "{stats:?}");
        scene.guest.relieve();
        scene.check_balance();
    });
}
