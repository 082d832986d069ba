//! A driver and its device, on a model of Xen: `cargo run --example driver`.
//!
//! The device is a camera. It reads descriptors from a ring, writes a frame into the memory that they
//! name, and marks each descriptor as done. It drives 24 address bits, and a segment may have up to 16 KiB.
//! `examples/packet.rs` is a driver that maps memory of the kernel. `examples/embed.rs` shows the kernel
//! around a driver; here the model brings one.

use std::error::Error;
use std::fmt;
use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};
use fake_xen::{FakeGuest, FakePlatform, GuestBuilder};
use xen_contig::addr::DmaAddr;
use xen_contig::dma::{
    AllocError, Allocator, BufferError, Coherent, CoherentBuffer, ConstraintError, Constraints,
    Device, Le, Request, Retain,
};
use xen_contig::field;

type Kernel = &'static FakePlatform;

/// A descriptor of the ring, as the device reads it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Descriptor {
    /// The address of the data.
    data: Le<u64>,
    /// The bytes of the data.
    len: Le<u32>,
    status: Le<u32>,
}

const DESCRIPTORS: usize = 16;

/// Values of the status.
const OWNED_BY_DEVICE: u32 = 1;
const DONE: u32 = 2;
const NO_SIGNAL: u32 = 3;

/// Why there is no frame.
#[derive(Debug)]
enum CaptureError {
    Access(BufferError),
    /// The camera reports a status that is not [`DONE`].
    Camera {
        descriptor: usize,
        status: u32,
    },
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(error) => write!(f, "{error}"),
            Self::Camera { descriptor, status } => {
                write!(f, "the camera reports status {status} for descriptor {descriptor}")
            }
        }
    }
}

impl Error for CaptureError {}

impl From<BufferError> for CaptureError {
    fn from(error: BufferError) -> Self {
        Self::Access(error)
    }
}

/// The driver of one camera. The camera stops before its memory is released.
struct Driver<'a> {
    camera: Camera,
    ring: Coherent<'a, Kernel, [Descriptor]>,
    data: CoherentBuffer<'a, Kernel>,
}

impl<'a> Driver<'a> {
    /// Returns what the camera can reach. The data may be several segments, each with a descriptor.
    fn limits() -> Result<Constraints, ConstraintError> {
        let limits = Constraints::builder().mask((1 << 24) - 1);
        limits.max_segment(16 << 10).max_segments(DESCRIPTORS).build()
    }

    /// Allocates the ring and `size` bytes of data, and tells the camera where the ring is.
    fn new(
        device: &'a Device<'_, Kernel>,
        mut camera: Camera,
        size: u64,
    ) -> Result<Self, AllocError> {
        let ring = Request::tagged("ring").max_segments(1);
        let ring = device.alloc_coherent_slice(DESCRIPTORS, ring)?.share();
        let data = device.alloc_coherent(Request::new(size).tag("data"))?;
        camera.write_ring(ring.dma_addr().get());
        Ok(Self { camera, ring, data })
    }

    /// Captures a frame into `frame`.
    fn capture(&mut self, frame: &mut [u8]) -> Result<(), CaptureError> {
        let mut used = 0;
        for segment in self.data.segments() {
            let descriptor = self.ring.at(used)?;
            field!(descriptor, Descriptor, data).store(Le::new(segment.dma.get()));
            field!(descriptor, Descriptor, len).store(Le::new(segment.len as u32));
            // Last, because the device may start as soon as it owns the descriptor.
            field!(descriptor, Descriptor, status).store(Le::new(OWNED_BY_DEVICE));
            used += 1;
        }
        self.camera.start();
        for (descriptor, cell) in self.ring.cells().enumerate().take(used) {
            match field!(cell, Descriptor, status).load().get() {
                DONE => {}
                status => return Err(CaptureError::Camera { descriptor, status }),
            }
        }
        Ok(self.data.read(0, frame)?)
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.camera.write_ring(0);
    }
}

/// The camera. It knows the machine's memory by address alone.
struct Camera {
    machine: &'static FakeGuest,
    ring: u64,
    has_signal: bool,
}

impl Camera {
    fn write_ring(&mut self, address: u64) {
        self.ring = address;
    }

    fn start(&mut self) {
        for index in 0..DESCRIPTORS {
            let at = self.ring + (index * size_of::<Descriptor>()) as u64;
            let mut descriptor = Descriptor::zeroed();
            self.machine.dma_read(DmaAddr::new(at), bytemuck::bytes_of_mut(&mut descriptor));
            if descriptor.status.get() != OWNED_BY_DEVICE {
                continue;
            }
            let status = if self.has_signal { DONE } else { NO_SIGNAL };
            let image = vec![0xa5; descriptor.len.get() as usize];
            self.machine.dma_write(DmaAddr::new(descriptor.data.get()), &image);
            let status_at = at + offset_of!(Descriptor, status) as u64;
            self.machine.dma_write(DmaAddr::new(status_at), bytemuck::bytes_of(&Le::new(status)));
        }
    }
}

/// Captures a frame, then one without a signal, and releases all memory.
pub fn main() -> Result<(), Box<dyn Error>> {
    let guest = GuestBuilder::new(2048).real_memory().build();
    let kernel: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let dma = Allocator::new(kernel, Retain::default());
    let device = Device::new(&dma, "camera", &Driver::limits()?)?;
    let camera = Camera { machine: kernel.guest(), ring: 0, has_signal: true };

    let mut driver = Driver::new(&device, camera, 100_000)?;
    println!("the ring is at {}", driver.ring.dma_addr());
    for segment in driver.data.segments() {
        println!("{:6} bytes of data at {}", segment.len, segment.dma);
    }
    let mut frame = vec![0; 100_000];
    driver.capture(&mut frame)?;
    println!("captured {} bytes", frame.iter().filter(|byte| **byte == 0xa5).count());
    assert!(frame.iter().all(|byte| *byte == 0xa5));

    driver.camera.has_signal = false;
    let error = driver.capture(&mut frame).expect_err("no signal");
    println!("without a signal: {error}");

    println!("{}", device.report());

    drop(driver);
    device.close()?;
    let report = dma.trim(u64::MAX);
    println!("trimmed: {} frames returned to Xen, {} freed", report.returned, report.freed);
    assert_eq!((report.error, dma.stats().idle), (None, 0));
    Ok(())
}
