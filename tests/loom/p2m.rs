//! Reads of the P2M during an exchange.

use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::dma::Retain;
use xen_contig::platform::Platform;

use crate::scene::{Kernel, LoomScene, explore, join, spawn};

/// A vCPU looks up a frame that a transaction exchanges. It reads the old machine frame, then none,
/// then the new one, in this order. It reads the new one only when Xen and the page tables agree
/// ([M4](xen_contig::rules#M4)).
#[test]
fn a_lookup_during_an_exchange_reads_a_frame_that_is_mapped() {
    explore(4, || {
        let scene = LoomScene::new(Retain::default());
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a new guest has free frames");
        let first = run.first();
        let old = [0, 1].map(|at| platform.p2m().mfn(first.add(at)).expect("the frame is mapped"));
        let reader = spawn(move || {
            let p2m = platform.p2m();
            let mut is_new = false;
            for _ in 0..2 {
                match p2m.mfn(first) {
                    None => assert!(!is_new, "the new machine frame is gone again"),
                    Some(mfn) if mfn == old[0] => assert!(!is_new, "the old machine frame is back"),
                    Some(mfn) => {
                        is_new = true;
                        assert_eq!(guest.linear_entry(first).mfn(), mfn);
                        assert_eq!(guest.pfn(mfn), Some(first));
                    }
                }
            }
        });
        let p2m = platform.p2m();
        let exchanger = guest.exchanger(platform.accounts(), Order::MAX);
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
        let extent = extent.expect("the machine has free frames");
        join(reader);
        assert_eq!(p2m.mfn(first.add(1)), Some(extent.mfn().add(1)));
        let run = exchanger.release(extent, &mut [0; 4]).expect("the machine has free frames");
        platform.give(run);
        scene.check_balance();
    });
}

/// Two vCPUs exchange runs of their own at the same time. Each reads the new machine frames of its run.
/// A vCPU that takes a run that the other freed reads its current machine frames.
#[test]
fn exchanges_of_different_frames_do_not_disturb_each_other() {
    explore(3, || {
        let scene = LoomScene::new(Retain::default());
        let platform = scene.platform.get();
        let exchange = move || {
            let run = platform.take(2, 2).expect("a new guest has free frames");
            let p2m = platform.p2m();
            let exchanger = platform.guest().exchanger(platform.accounts(), Order::MAX);
            let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
            let extent = extent.expect("the machine has free frames");
            for (pfn, at) in extent.run().iter().zip(0..) {
                check_current(platform, pfn);
                assert_eq!(p2m.mfn(pfn), Some(extent.mfn().add(at)));
            }
            platform
                .give(exchanger.release(extent, &mut [0; 4]).expect("the machine has free frames"));
            let again = platform.take(2, 2).expect("a freed run, or its neighbours");
            again.iter().for_each(|pfn| check_current(platform, pfn));
            platform.give(again);
        };
        let other = spawn(exchange);
        exchange();
        join(other);
        scene.check_balance();
    });
}

/// Checks that this thread reads the machine frame that backs `pfn` in the P2M.
fn check_current(platform: Kernel, pfn: Pfn) {
    let mfn = platform.p2m().mfn(pfn).expect("an owned frame is mapped");
    assert_eq!(platform.guest().pfn(mfn), Some(pfn), "the P2M says that {mfn} backs {pfn}");
}
