//! P2M lookups beside an exchange.

use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::dma::Retain;
use xen_contig::platform::Platform;

use crate::scene::{Kernel, LoomScene, explore, join, spawn};

/// Who looks up a frame that a transaction holds sees what was, nothing, or what is: in that order,
/// and what is new only once Xen and the page tables say so, too ([M4](xen_contig::rules#M4)).
#[test]
fn a_lookup_beside_an_exchange_sees_no_frame_that_is_not_there() {
    explore(4, || {
        let scene = LoomScene::new(Retain::default());
        let (platform, guest) = (scene.platform.get(), scene.guest.get());
        let run = platform.take(2, 2).expect("a fresh guest");
        let first = run.first();
        let old = [0, 1].map(|at| platform.p2m().mfn(first.add(at)).expect("mapped"));
        let looker = spawn(move || {
            let p2m = platform.p2m();
            let mut came = false;
            for _ in 0..2 {
                match p2m.mfn(first) {
                    None => assert!(!came, "it went away again"),
                    Some(mfn) if mfn == old[0] => assert!(!came, "it came back"),
                    Some(mfn) => {
                        came = true;
                        assert_eq!(guest.linear_entry(first).mfn(), mfn);
                        assert_eq!(guest.pfn(mfn), Some(first));
                    }
                }
            }
        });
        let p2m = platform.p2m();
        let exchanger = guest.exchanger(platform.accounts(), Order::MAX);
        let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
        let extent = extent.expect("a machine with room");
        join(looker);
        assert_eq!(p2m.mfn(first.add(1)), Some(extent.mfn().add(1)));
        let run = exchanger.release(extent, &mut [0; 4]).expect("a machine with room");
        platform.give(run);
        scene.is_balanced();
    });
}

/// Two vCPUs exchange runs of their own at the same time. Each finds its own frames beneath them,
/// and what the one gives back is up to date for the other who takes it.
#[test]
fn exchanges_of_different_frames_keep_out_of_each_others_way() {
    explore(3, || {
        let scene = LoomScene::new(Retain::default());
        let platform = scene.platform.get();
        let exchange = move || {
            let run = platform.take(2, 2).expect("a fresh guest");
            let p2m = platform.p2m();
            let exchanger = platform.guest().exchanger(platform.accounts(), Order::MAX);
            let extent = exchanger.acquire(run, AddressBits::UNLIMITED, &mut [0; 2]);
            let extent = extent.expect("a machine with room");
            for (pfn, at) in extent.run().iter().zip(0..) {
                is_current(platform, pfn);
                assert_eq!(p2m.mfn(pfn), Some(extent.mfn().add(at)));
            }
            platform.give(exchanger.release(extent, &mut [0; 4]).expect("a machine with room"));
            let again = platform.take(2, 2).expect("what was given back, or its neighbours");
            again.iter().for_each(|pfn| is_current(platform, pfn));
            platform.give(again);
        };
        let other = spawn(exchange);
        exchange();
        join(other);
        scene.is_balanced();
    });
}

/// The P2M that this thread sees says what Xen says.
fn is_current(platform: Kernel, pfn: Pfn) {
    let mfn = platform.p2m().mfn(pfn).expect("a frame that is ours is mapped");
    assert_eq!(platform.guest().pfn(mfn), Some(pfn), "{pfn} has {mfn} beneath it");
}
