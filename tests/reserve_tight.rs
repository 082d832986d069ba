//! A kernel that is short of memory for the lists of an exchange, and what it receives about frames that
//! Xen refuses.

#![forbid(unsafe_code)]

use fake_xen::{FakePlatform, GuestBuilder};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Allocator, Constraints, Retain};
use xen_contig::exchange::ExchangeError;
use xen_contig::platform::Platform;

type Kernel = &'static FakePlatform;

const PAGE: u64 = PAGE_SIZE as u64;

/// The guest, and the memory of a released buffer in its reserve.
fn idle(pages: u64) -> (Kernel, Allocator<Kernel>, u64) {
    let guest = GuestBuilder::new(2048).machine_frames(8192).build();
    let kernel: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let free = kernel.free_frames();
    let allocator = Allocator::new(kernel, Retain::default());
    let low = Constraints::builder().mask((1 << 24) - 1).build().unwrap();
    drop(allocator.alloc_coherent(pages * PAGE, &low).expect("low memory"));
    (kernel, allocator, free)
}

#[test]
fn a_trim_makes_do_with_short_lists() {
    for (pages, most) in [(512, 600), (512, 65), (512, 2), (257, 100), (64, 3)] {
        let (kernel, allocator, free) = idle(pages);
        kernel.limit_lists(most);
        let report = allocator.trim(u64::MAX);
        assert_eq!((report.error, report.quarantined), (None, 0), "{pages} pages, {most} words");
        assert!(report.returned >= pages, "{pages} pages, {most} words: {report:?}");
        let stats = allocator.stats();
        assert_eq!((stats.idle, stats.lent, stats.below_16m), (0, 0, 0), "{stats:?}");
        assert_eq!(kernel.free_frames(), free);
        kernel.guest().check_whole();
    }
}

#[test]
fn a_trim_without_lists_keeps_the_memory() {
    let (kernel, allocator, _) = idle(64);
    kernel.limit_lists(1);
    let report = allocator.trim(u64::MAX);
    assert!(matches!(report.error, Some(ExchangeError::NoListMemory { .. })), "{report:?}");
    assert!(allocator.stats().idle >= 64, "{report:?}");
    kernel.limit_lists(u64::MAX);
    assert_eq!(allocator.trim(u64::MAX).error, None);
    kernel.guest().check_whole();
}

#[test]
fn each_refused_frame_is_reported_once() {
    let (kernel, allocator, free) = idle(64);
    allocator.trim(u64::MAX);
    let run = kernel.take(64, 64).expect("memory");
    let stuck = run.first().add(5);
    kernel.give(run);
    kernel.guest().hold(stuck);
    let low = Constraints::builder().mask((1 << 23) - 1).build().unwrap();
    let buffers: Vec<_> =
        (0..4).map(|_| allocator.alloc_coherent(64 * PAGE, &low).expect("low memory")).collect();
    let reported = kernel.take_set_aside();
    assert!(
        matches!(reported[..], [(pfn, ExchangeError::FrameBusy { pfn: busy, .. })] if [pfn, busy] == [stuck; 2]),
        "{reported:?}"
    );
    drop(buffers);
    // Xen refuses it again.
    allocator.trim(u64::MAX);
    assert_eq!(kernel.take_set_aside(), []);
    kernel.guest().unhold(stuck);
    allocator.trim(u64::MAX);
    assert_eq!((allocator.stats().set_aside, kernel.free_frames()), (0, free));
    kernel.guest().check_whole();
}
