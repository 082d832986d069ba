//! Faults in every operation of the adapters.
//!
//! Every hypercall fails once with each errno, and every exchange fails inside Xen in every way that
//! the model knows. Afterwards each frame is in one place, no record is lost, and the buffers of
//! drivers are intact.

use std::cell::Cell;
use std::ptr::NonNull;

use dma_api::{DmaConstraints, DmaDirection, DmaOp};
use fake_xen::GuestBuilder;
use hypercall::XenErrno;
use virtio_drivers::{BufferDirection, Hal};
use xen_contig::adapters::virtio_drivers::{NO_ADDRESS, StaticDevice, XenHal};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{Constraints, Device};

use super::arm::arm;
use super::faults::{Case, InjectedFault, Tally, sweep};
use super::host::{HostScene, Kernel, PageAligned};

/// The pages of each buffer. More than one, so that a scattered guest needs an exchange.
const PAGES: usize = 4;
const BYTES: usize = PAGES * PAGE_SIZE;

const ANY: DmaConstraints = DmaConstraints::new(u64::MAX);
const BOTH: BufferDirection = BufferDirection::Both;

thread_local! {
    /// The device of the case that runs on this thread.
    static DEVICE: Cell<Option<&'static Device<'static, Kernel>>> = const { Cell::new(None) };
}

/// The device of the case that runs.
enum SweepDevice {}

// SAFETY: `device` returns the same device throughout a case, and no case maps registers.
unsafe impl StaticDevice for SweepDevice {
    type Platform = Kernel;

    fn device() -> &'static Device<'static, Kernel> {
        DEVICE.get().expect("a case runs on this thread")
    }

    unsafe fn mmio_phys_to_virt(_address: u64, _size: usize) -> NonNull<u8> {
        unreachable!("the device has no registers")
    }
}

type Virtio = XenHal<SweepDevice>;

/// An operation that runs with a fault.
#[derive(Clone, Copy, Debug)]
enum AdapterOperation {
    VirtioAlloc,
    VirtioDealloc,
    VirtioShare,
    VirtioUnshare,
    Coherent,
    CoherentRelease,
    Map,
    Unmap,
}

/// Returns a driver's own buffer, on the heap, so that the adapter must bounce it.
fn content() -> Box<PageAligned<BYTES>> {
    Box::new(PageAligned(std::array::from_fn(|at| (at * 7 + at / 256) as u8)))
}

impl AdapterOperation {
    /// Runs the operation with a fault. Meanwhile a device has the memory of another driver.
    fn run(self, fault: Option<&InjectedFault>) -> Case {
        let scene = HostScene::new(GuestBuilder::new(160).build(), Constraints::default());
        DEVICE.set(Some(scene.device));
        let (others, pointer) = Virtio::dma_alloc(2, BOTH);
        assert_ne!(others, 0);
        scene.device_writes(others, &[0x5a; 2 * PAGE_SIZE]);
        let case = self.run_in(&scene, fault);
        assert_eq!(scene.device_reads(others, 2 * PAGE_SIZE), [0x5a; 2 * PAGE_SIZE]);
        assert_eq!((scene.device.live(), scene.device.check_in_place()), (1, Ok(())));
        assert!(
            case.met || case.quarantined == 0,
            "frames were quarantined without a fault: {case:?}"
        );
        scene.check_accounts(2);
        // Without a fault the next driver gets memory, and all frames are free at the end.
        let (next, at) = Virtio::dma_alloc(PAGES, BOTH);
        assert_eq!(scene.device_reads(next, BYTES), vec![0; BYTES]);
        // SAFETY: the addresses and lengths are those of the allocations.
        let freed = unsafe {
            [Virtio::dma_dealloc(next, at, PAGES), Virtio::dma_dealloc(others, pointer, 2)]
        };
        assert_eq!(freed, [0, 0]);
        assert_eq!(scene.trim().error, None);
        assert_eq!((scene.device.live(), scene.check_accounts(0)), (0, case.quarantined));
        scene.end();
        case
    }

    fn run_in(self, scene: &HostScene, fault: Option<&InjectedFault>) -> Case {
        let arm = || {
            scene.take_calls();
            fault.into_iter().for_each(|fault| arm(fault, scene.guest()));
        };
        // Ends the fault. A driver that got memory frees it after this.
        let end = |answer: Result<(), String>, held: u64| {
            let met = scene.guest().xen().disarm() > 0;
            let quarantined = scene.check_accounts(2 + held);
            assert_eq!(scene.device.live(), 1 + usize::from(held > 0), "{answer:?}");
            assert_eq!(scene.device.check_in_place(), Ok(()));
            Case { met, answer, quarantined }
        };
        // Freeing makes no hypercall. The trim after it makes some, which the fault can hit.
        let trim = || {
            assert_eq!(scene.take_calls(), 0);
            scene.trim().error.map_or(Ok(()), |error| Err(error.to_string()))
        };
        let pages = PAGES as u64;
        let layout = std::alloc::Layout::from_size_align(BYTES, 8).unwrap();
        let direction = DmaDirection::Bidirectional;
        let mut own = content();
        let buffer = NonNull::from(&mut own.0[..]);
        // SAFETY: each allocation, share and map is undone once and with its own arguments. The bytes
        // outlive them, and nothing else accesses it meanwhile.
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
                    assert_eq!(Virtio::dma_dealloc(paddr, vaddr, PAGES), 0, "{fault:?}");
                    end(trim(), 0)
                }
                Self::VirtioShare => {
                    arm();
                    let paddr = Virtio::share(buffer, BOTH);
                    if paddr == NO_ADDRESS {
                        Virtio::unshare(paddr, buffer, BOTH);
                        return end(Err("no bounce buffer".into()), 0);
                    }
                    assert_eq!(scene.device_reads(paddr, BYTES), content().0);
                    let case = end(Ok(()), pages);
                    Virtio::unshare(paddr, buffer, BOTH);
                    case
                }
                Self::VirtioUnshare => {
                    let paddr = Virtio::share(buffer, BOTH);
                    scene.device_writes(paddr, &[0x99; BYTES]);
                    arm();
                    Virtio::unshare(paddr, buffer, BOTH);
                    assert_eq!(
                        buffer.as_ref(),
                        [0x99; BYTES],
                        "`unshare` must copy the device's bytes"
                    );
                    end(trim(), 0)
                }
                Self::Coherent => {
                    arm();
                    let Some(handle) = DmaOp::alloc_coherent(scene.device, ANY, layout) else {
                        return end(Err("no memory".into()), 0);
                    };
                    let case = end(Ok(()), pages);
                    assert_eq!(scene.device.dealloc_coherent(handle), Ok(()));
                    case
                }
                Self::CoherentRelease => {
                    let handle = DmaOp::alloc_coherent(scene.device, ANY, layout).unwrap();
                    arm();
                    assert_eq!(scene.device.dealloc_coherent(handle), Ok(()), "{fault:?}");
                    end(trim(), 0)
                }
                Self::Map => {
                    arm();
                    let size = BYTES.try_into().unwrap();
                    match scene.device.map_streaming(ANY, buffer.cast(), size, direction) {
                        Ok(map) => {
                            let at = map.dma_addr().as_u64();
                            assert_eq!(scene.device_reads(at, BYTES), content().0);
                            let case = end(Ok(()), pages);
                            scene.device.unmap_streaming(map);
                            case
                        }
                        Err(error) => end(Err(error.to_string()), 0),
                    }
                }
                Self::Unmap => {
                    let size = BYTES.try_into().unwrap();
                    let map = scene.device.map_streaming(ANY, buffer.cast(), size, direction);
                    arm();
                    scene.device.unmap_streaming(map.unwrap());
                    end(trim(), 0)
                }
            }
        };
        scene.trim();
        case
    }
}

fn sweep_all(operations: &[AdapterOperation]) {
    let mut sum = Tally::default();
    for operation in operations {
        sum += sweep(&format!("adapter {operation:?}"), false, |fault| operation.run(fault));
    }
    assert!(sum.cases > 0 && sum.quarantined > 0, "{sum:?}");
}

#[test]
fn virtio() {
    sweep_all(&[
        AdapterOperation::VirtioAlloc,
        AdapterOperation::VirtioDealloc,
        AdapterOperation::VirtioShare,
        AdapterOperation::VirtioUnshare,
    ]);
}

#[test]
fn dma_api() {
    sweep_all(&[
        AdapterOperation::Coherent,
        AdapterOperation::CoherentRelease,
        AdapterOperation::Map,
        AdapterOperation::Unmap,
    ]);
}

#[test]
fn sharing_in_place_makes_no_hypercall() {
    let scene = HostScene::new(GuestBuilder::new(160).build(), Constraints::default());
    DEVICE.set(Some(scene.device));
    let (run, pointer) = scene.take_linear(1);
    let bytes = NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap(), PAGE_SIZE);
    scene.take_calls();
    arm(&InjectedFault::Call { call: 1, errno: XenErrno::EPERM, after: 0 }, scene.guest());
    // SAFETY: `run` owns the frame. It is unshared and unmapped with the arguments of sharing and
    // mapping.
    unsafe {
        let paddr = Virtio::share(bytes, BOTH);
        Virtio::unshare(paddr, bytes, BOTH);
        let size = PAGE_SIZE.try_into().unwrap();
        let map = scene.device.map_streaming(ANY, bytes.cast(), size, DmaDirection::ToDevice);
        scene.device.unmap_streaming(map.unwrap());
    }
    assert_eq!((scene.guest().xen().disarm(), scene.take_calls()), (0, 0));
    scene.give(run);
    scene.check_balance();
}
