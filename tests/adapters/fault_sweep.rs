//! Every hypercall of every operation of the adapters fails once, with each errno that it may give.
//! Every exchange goes wrong on the inside in every way that the model knows.
//!
//! Afterwards each frame is in one place, no slot is lost, and what drivers have is intact.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use dma_api::{DmaConstraints, DmaDirection, DmaOp};
use fake_xen::GuestBuilder;
use hypercall::XenErrno;
use virtio_drivers::{BufferDirection, Hal};
use xen_contig::adapters::DeviceMemory;
use xen_contig::adapters::virtio_drivers::{StaticDevice, XenHal};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::Constraints;

use super::arm::arm;
use super::faults::{Case, Tally, Wrong, sweep};
use super::host::{HostScene, Kernel};

/// Pages of each buffer; more than one, so that a scattered guest has to ask Xen.
const PAGES: usize = 4;
const BYTES: usize = PAGES * PAGE_SIZE;

const ANY: DmaConstraints = DmaConstraints::new(u64::MAX);
const BOTH: BufferDirection = BufferDirection::Both;

thread_local! {
    /// The memory of the case that is being played on this thread.
    static MEMORY: Cell<Option<&'static DeviceMemory<Kernel>>> = const { Cell::new(None) };
}

/// The device of whatever case is being played.
enum SweepDevice {}

// SAFETY: the same memory from the first to the last use in a case, and no case has registers.
unsafe impl StaticDevice for SweepDevice {
    type Platform = Kernel;

    fn memory() -> &'static DeviceMemory<Kernel> {
        MEMORY.get().expect("a case is being played")
    }

    unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
        unreachable!("there are no registers")
    }
}

type Virtio = XenHal<SweepDevice>;

/// What is done while something is wrong.
#[derive(Clone, Copy, Debug)]
enum AdapterAct {
    VirtioAlloc,
    VirtioDealloc,
    VirtioShare,
    VirtioUnshare,
    Coherent,
    CoherentRelease,
    Map,
    Unmap,
}

/// A driver's own buffer, on the heap, so that it has to be bounced.
fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at * 7 + at / 256) as u8).collect()
}

impl AdapterAct {
    /// Plays the act, with something wrong. A device has the memory of another driver all the time.
    fn play(self, wrong: Option<&Wrong>) -> Case {
        let scene = HostScene::new(GuestBuilder::new(160).build(), Constraints::default(), 3);
        MEMORY.set(Some(scene.memory));
        let (others, pointer) = Virtio::dma_alloc(2, BOTH);
        assert_ne!(others, 0);
        scene.device_writes(others, &[0x5a; 2 * PAGE_SIZE]);
        let case = self.act(&scene, wrong);
        assert_eq!(scene.device_reads(others, 2 * PAGE_SIZE), [0x5a; 2 * PAGE_SIZE]);
        assert_eq!((scene.memory.live(), scene.memory.check_in_place()), (1, Ok(())));
        assert!(case.met || case.quarantined == 0, "lost without a cause: {case:?}");
        scene.accounted(2);
        // Nothing is wrong any more: the next driver is served, and all goes back.
        let (next, at) = Virtio::dma_alloc(PAGES, BOTH);
        assert_eq!(scene.device_reads(next, BYTES), vec![0; BYTES]);
        // SAFETY: as they were allocated.
        let freed = unsafe {
            [Virtio::dma_dealloc(next, at, PAGES), Virtio::dma_dealloc(others, pointer, 2)]
        };
        assert_eq!(freed, [0, 0]);
        assert_eq!(scene.trim().error, None);
        assert_eq!((scene.memory.live(), scene.accounted(0)), (0, case.quarantined));
        scene.is_over();
        case
    }

    fn act(self, scene: &HostScene, wrong: Option<&Wrong>) -> Case {
        let arm = || {
            scene.calls();
            wrong.into_iter().for_each(|wrong| arm(wrong, scene.guest()));
        };
        // What a driver has gone on with, it gives back when nothing is wrong any more.
        let end = |answer: Result<(), String>, held: u64| {
            let met = scene.guest().xen().disarm() > 0;
            let quarantined = scene.accounted(2 + held);
            assert_eq!(scene.memory.live(), 1 + usize::from(held > 0), "{answer:?}");
            assert_eq!(scene.memory.check_in_place(), Ok(()));
            Case { met, answer, quarantined }
        };
        // What a driver gives back makes no hypercall. The trim after it makes some.
        let trim = || {
            assert_eq!(scene.calls(), 0);
            scene.trim().error.map_or(Ok(()), |error| Err(error.to_string()))
        };
        let pages = PAGES as u64;
        let layout = std::alloc::Layout::from_size_align(BYTES, 8).unwrap();
        let direction = DmaDirection::Bidirectional;
        let mut own = content();
        let buffer = NonNull::from(own.as_mut_slice());
        // SAFETY: each is given back once and as it was taken; the vector outlives what is shared
        // or mapped of it, and nobody touches it meanwhile.
        let case = unsafe {
            match self {
                Self::VirtioAlloc => {
                    arm();
                    let (paddr, vaddr) = Virtio::dma_alloc(PAGES, BOTH);
                    if paddr == 0 {
                        return end(Err("no memory".into()), 0);
                    }
                    assert_eq!(scene.device_reads(paddr, BYTES), vec![0; BYTES]);
                    let case = end(Ok(()), pages);
                    assert_eq!(Virtio::dma_dealloc(paddr, vaddr, PAGES), 0);
                    case
                }
                Self::VirtioDealloc => {
                    let (paddr, vaddr) = Virtio::dma_alloc(PAGES, BOTH);
                    arm();
                    assert_eq!(Virtio::dma_dealloc(paddr, vaddr, PAGES), 0, "{wrong:?}");
                    end(trim(), 0)
                }
                Self::VirtioShare => {
                    arm();
                    let Ok(paddr) = catch_unwind(AssertUnwindSafe(|| Virtio::share(buffer, BOTH)))
                    else {
                        return end(Err("it says so loudly".into()), 0);
                    };
                    assert_eq!(scene.device_reads(paddr, BYTES), content());
                    let case = end(Ok(()), pages);
                    Virtio::unshare(paddr, buffer, BOTH);
                    case
                }
                Self::VirtioUnshare => {
                    let paddr = Virtio::share(buffer, BOTH);
                    scene.device_writes(paddr, &[0x99; BYTES]);
                    arm();
                    Virtio::unshare(paddr, buffer, BOTH);
                    assert_eq!(buffer.as_ref(), [0x99; BYTES], "the data came all the same");
                    end(trim(), 0)
                }
                Self::Coherent => {
                    arm();
                    let Some(handle) = scene.memory.alloc_coherent(ANY, layout) else {
                        return end(Err("no memory".into()), 0);
                    };
                    let case = end(Ok(()), pages);
                    assert_eq!(scene.memory.dealloc_coherent(handle), Ok(()));
                    case
                }
                Self::CoherentRelease => {
                    let handle = scene.memory.alloc_coherent(ANY, layout).unwrap();
                    arm();
                    assert_eq!(scene.memory.dealloc_coherent(handle), Ok(()), "{wrong:?}");
                    end(trim(), 0)
                }
                Self::Map => {
                    arm();
                    let size = BYTES.try_into().unwrap();
                    match scene.memory.map_streaming(ANY, buffer.cast(), size, direction) {
                        Ok(map) => {
                            let at = map.dma_addr().as_u64();
                            assert_eq!(scene.device_reads(at, BYTES), content());
                            let case = end(Ok(()), pages);
                            scene.memory.unmap_streaming(map);
                            case
                        }
                        Err(error) => end(Err(error.to_string()), 0),
                    }
                }
                Self::Unmap => {
                    let size = BYTES.try_into().unwrap();
                    let map = scene.memory.map_streaming(ANY, buffer.cast(), size, direction);
                    arm();
                    scene.memory.unmap_streaming(map.unwrap());
                    end(trim(), 0)
                }
            }
        };
        scene.trim();
        case
    }
}

fn sweep_all(acts: &[AdapterAct]) {
    let mut sum = Tally::default();
    for act in acts {
        sum += sweep(&format!("adapter {act:?}"), false, |wrong| act.play(wrong));
    }
    assert!(sum.cases > 0 && sum.quarantined > 0, "{sum:?}");
}

#[test]
fn virtio() {
    sweep_all(&[AdapterAct::VirtioAlloc, AdapterAct::VirtioDealloc, AdapterAct::VirtioUnshare]);
}

/// Apart, for a driver that gets no bounce buffer is stopped, which takes its time to tell.
#[test]
fn virtio_share() {
    sweep_all(&[AdapterAct::VirtioShare]);
}

#[test]
fn dma_api() {
    sweep_all(&[
        AdapterAct::Coherent,
        AdapterAct::CoherentRelease,
        AdapterAct::Map,
        AdapterAct::Unmap,
    ]);
}

/// What lies in the linear mapping, a page of it, is shared and mapped without asking Xen: there is
/// nothing that could fail.
#[test]
fn in_place_nothing_can_fail() {
    let scene = HostScene::new(GuestBuilder::new(160).build(), Constraints::default(), 1);
    MEMORY.set(Some(scene.memory));
    let (run, pointer) = scene.linear(1);
    let bytes = NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap(), PAGE_SIZE);
    scene.calls();
    arm(&Wrong::Call { call: 1, errno: XenErrno::EPERM, after: 0 }, scene.guest());
    // SAFETY: a frame of the test's, unshared and unmapped as it was shared and mapped.
    unsafe {
        let paddr = Virtio::share(bytes, BOTH);
        Virtio::unshare(paddr, bytes, BOTH);
        let size = PAGE_SIZE.try_into().unwrap();
        let map = scene.memory.map_streaming(ANY, bytes.cast(), size, DmaDirection::ToDevice);
        scene.memory.unmap_streaming(map.unwrap());
    }
    assert_eq!((scene.guest().xen().disarm(), scene.calls()), (0, 0));
    scene.give(run);
    scene.is_balanced();
}
