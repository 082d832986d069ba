//! A driver and its device, on a model of Xen: `cargo run --example driver`.
//!
//! The device captures frames of a camera. It reads descriptors from a ring, writes a frame into the
//! memory that they name, and marks each descriptor as done. It drives 24 address bits, and a segment
//! may have up to 16 KiB. `examples/embed.rs` shows the kernel around a driver; here the model brings one.

use std::error::Error;
use std::fmt;

use fake_xen::{FakeGuest, FakePlatform, GuestBuilder};
use xen_contig::addr::DmaAddr;
use xen_contig::dma::{AllocError, Allocator, BufferError, CoherentBuffer, Constraints, Retain};

type Kernel = &'static FakePlatform;

/// Bytes of a descriptor: the address of the data (8 bytes), its length (4), the status (4).
const DESCRIPTOR: u64 = 16;
const DESCRIPTORS: u64 = 16;

/// Values of the status.
const OWNED_BY_DEVICE: u32 = 1;
const DONE: u32 = 2;
const NO_SIGNAL: u32 = 3;

/// Why there is no frame.
#[derive(Debug)]
enum CaptureError {
    Access(BufferError),
    /// The device reports a status that is not [`DONE`].
    Device {
        descriptor: u64,
        status: u32,
    },
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(error) => write!(f, "{error}"),
            Self::Device { descriptor, status } => {
                write!(f, "the device reports status {status} for descriptor {descriptor}")
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

/// The driver of one device. The device stops before its memory is released.
struct Driver<'a> {
    device: Device,
    ring: CoherentBuffer<'a, Kernel>,
    data: CoherentBuffer<'a, Kernel>,
}

impl<'a> Driver<'a> {
    /// Allocates the ring and `size` bytes of data, and tells the device where the ring is.
    fn new(dma: &'a Allocator<Kernel>, mut device: Device, size: u64) -> Result<Self, AllocError> {
        // The ring is one segment. The data may be several, each with a descriptor.
        let limits = Constraints::builder().mask((1 << 24) - 1);
        let ring = dma.alloc_coherent(DESCRIPTORS * DESCRIPTOR, &limits.build()?)?;
        let scattered = limits.max_segment(16 << 10).max_segments(DESCRIPTORS as usize);
        let data = dma.alloc_coherent(size, &scattered.build()?)?;
        device.write_ring(ring.dma_addr().get());
        Ok(Self { device, ring, data })
    }

    /// Captures a frame into `frame`.
    fn capture(&mut self, frame: &mut [u8]) -> Result<(), CaptureError> {
        let mut used = 0;
        for segment in self.data.segments() {
            let at = used * DESCRIPTOR;
            self.ring.store(at, segment.dma.get())?;
            self.ring.store(at + 8, segment.len as u32)?;
            // Last, because the device may start as soon as it owns the descriptor.
            self.ring.store(at + 12, OWNED_BY_DEVICE)?;
            used += 1;
        }
        self.device.start();
        for descriptor in 0..used {
            match self.ring.load(descriptor * DESCRIPTOR + 12)? {
                DONE => {}
                status => return Err(CaptureError::Device { descriptor, status }),
            }
        }
        Ok(self.data.read(0, frame)?)
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.device.write_ring(0);
    }
}

/// The device. It knows the machine's memory by address alone.
struct Device {
    machine: &'static FakeGuest,
    ring: u64,
    has_signal: bool,
}

impl Device {
    fn write_ring(&mut self, address: u64) {
        self.ring = address;
    }

    fn start(&mut self) {
        for at in (0..DESCRIPTORS).map(|index| self.ring + index * DESCRIPTOR) {
            let mut descriptor = [0; DESCRIPTOR as usize];
            self.machine.dma_read(DmaAddr::new(at), &mut descriptor);
            let [address, rest] = [0, 8]
                .map(|at| u64::from_le_bytes(descriptor[at..at + 8].try_into().expect("8 bytes")));
            let (len, status) = (rest as u32, (rest >> 32) as u32);
            if status != OWNED_BY_DEVICE {
                continue;
            }
            let status = if self.has_signal { DONE } else { NO_SIGNAL };
            self.machine.dma_write(DmaAddr::new(address), &vec![0xa5; len as usize]);
            self.machine.dma_write(DmaAddr::new(at + 12), &status.to_le_bytes());
        }
    }
}

/// Captures a frame, then one without a signal, and releases all memory.
pub fn main() -> Result<(), Box<dyn Error>> {
    let guest = GuestBuilder::new(2048).real_memory().build();
    let kernel: Kernel = Box::leak(Box::new(FakePlatform::new(guest)));
    let dma = Allocator::new(kernel, Retain::default());
    let device = Device { machine: kernel.guest(), ring: 0, has_signal: true };

    let mut driver = Driver::new(&dma, device, 100_000)?;
    println!("the ring is at {}", driver.ring.dma_addr());
    for segment in driver.data.segments() {
        println!("{:6} bytes of data at {}", segment.len, segment.dma);
    }
    let mut frame = vec![0; 100_000];
    driver.capture(&mut frame)?;
    println!("captured {} bytes", frame.iter().filter(|byte| **byte == 0xa5).count());
    assert!(frame.iter().all(|byte| *byte == 0xa5));

    driver.device.has_signal = false;
    let error = driver.capture(&mut frame).expect_err("no signal");
    println!("without a signal: {error}");

    drop(driver);
    let report = dma.trim(u64::MAX);
    println!("trimmed: {} frames returned to Xen, {} freed", report.returned, report.freed);
    assert_eq!((report.error, dma.stats().idle), (None, 0));
    Ok(())
}
