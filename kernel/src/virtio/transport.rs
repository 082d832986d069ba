//! The transport of `virtio-drivers` for modern PCI devices, with two additions.

use spin::Mutex;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use xen_contig::addr::DmaAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `VIRTIO_F_ACCESS_PLATFORM` (virtio 1.1, 6.1): the device's accesses go through an IOMMU.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// The queue that the driver set up.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// The address of the descriptors.
    pub descriptors: DmaAddr,
    /// The address of the ring that the driver writes.
    pub driver_area: DmaAddr,
    /// The address of the ring that the device writes.
    pub device_area: DmaAddr,
    /// The device's status at that time, which tells whether it accepted the features.
    pub status: DeviceStatus,
}

/// The transport of `virtio-drivers` for modern PCI devices, with two additions.
///
/// * It accepts `VIRTIO_F_ACCESS_PLATFORM`, which a device behind an IOMMU requires. The crate's
///   drivers do not know the feature. They fulfil it, because they take all addresses from `Hal`.
/// * It records the addresses of the queue, for self-tests.
pub struct BusTransport<'d> {
    // Dropping the field resets the device, so the registers stay mapped until then.
    pci: PciTransport,
    queue: &'d Mutex<Option<Queue>>,
}

impl<'d> BusTransport<'d> {
    pub(super) const fn new(pci: PciTransport, queue: &'d Mutex<Option<Queue>>) -> Self {
        Self { pci, queue }
    }
}

impl Transport for BusTransport<'_> {
    fn device_type(&self) -> DeviceType {
        self.pci.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.pci.read_device_features()
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        let platform = self.pci.read_device_features() & ACCESS_PLATFORM;
        self.pci.write_driver_features(driver_features | platform);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.pci.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.pci.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.pci.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.pci.set_status(status);
    }

    fn set_guest_page_size(&mut self, guest_page_size: u32) {
        self.pci.set_guest_page_size(guest_page_size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.pci.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        let [descriptors_at, driver_at, device_at] =
            [descriptors, driver_area, device_area].map(DmaAddr::new);
        *self.queue.lock() = Some(Queue {
            descriptors: descriptors_at,
            driver_area: driver_at,
            device_area: device_at,
            status: self.pci.get_status(),
        });
        self.pci.queue_set(queue, size, descriptors, driver_area, device_area);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.pci.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.pci.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.pci.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.pci.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        self.pci.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<(), Error> {
        self.pci.write_config_space(offset, value)
    }
}
