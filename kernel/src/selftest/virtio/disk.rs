//! The disk and its requests, several at a time.

use core::hint;

use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use xen_contig::adapters::virtio_drivers::StaticDevice;

use super::watch::Watched;
use super::{Check, TestOutcome, error, fail};
use crate::virtio::{BusTransport, Kernel, VirtioDevice};

/// Requests that the driver's queue takes at a time: 16 descriptors, three for each.
pub const AT_A_TIME: usize = 5;

/// Looks at the queue before the device is given up. Under QEMU a look takes 0.3 µs, so this is some
/// 20 s; a disk in a file takes a millisecond.
const PATIENCE: u32 = 1 << 26;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the disk.
    Read,
    /// To it.
    Write,
}

/// A request, and what the device needs for it.
pub struct DiskRequest<'b> {
    way: Way,
    sector: usize,
    buffer: &'b mut [u8],
    header: BlkReq,
    response: BlkResp,
    token: Option<u16>,
}

impl<'b> DiskRequest<'b> {
    /// A request for as many sectors, from `sector` on, as the buffer has room for.
    pub fn new(way: Way, sector: usize, buffer: &'b mut [u8]) -> Self {
        let (header, response) = (BlkReq::default(), BlkResp::default());
        Self { way, sector, buffer, header, response, token: None }
    }
}

type Driver<'d, S> = VirtIOBlk<Watched<S>, BusTransport<'d>>;

/// The disk. Dropping this resets the device.
pub struct VirtioDisk<'d, S: StaticDevice<Platform = Kernel>> {
    /// `None` after a failure.
    driver: Option<Driver<'d, S>>,
}

impl<'d, S: StaticDevice<Platform = Kernel>> VirtioDisk<'d, S> {
    /// Has a driver take the device.
    pub fn new(device: &'d VirtioDevice) -> Result<Self, TestOutcome> {
        let transport = match device.transport::<Watched<S>>() {
            Ok(transport) => transport,
            Err(why) => error!("{why}"),
        };
        match VirtIOBlk::new(transport) {
            Ok(driver) => Ok(Self { driver: Some(driver) }),
            Err(error) => fail!("the driver does not start: {error}"),
        }
    }

    /// How many sectors it has.
    pub fn capacity(&self) -> u64 {
        self.driver.as_ref().map_or(0, VirtIOBlk::capacity)
    }

    /// Reads into one buffer.
    pub fn read(&mut self, sector: usize, buffer: &mut [u8]) -> Check {
        self.transfer(&mut [DiskRequest::new(Way::Read, sector, buffer)])
    }

    /// Gives the device all requests, and comes back when they are done.
    pub fn transfer(&mut self, requests: &mut [DiskRequest<'_>]) -> Check {
        let Some(driver) = &mut self.driver else { error!("the device was given up") };
        let done = run(driver, requests);
        if done.is_err() {
            // Resets the device, which then uses no buffer any more; the caller's go.
            self.driver = None;
        }
        done
    }
}

fn run<S: StaticDevice<Platform = Kernel>>(
    driver: &mut Driver<'_, S>,
    requests: &mut [DiskRequest<'_>],
) -> Check {
    for request in &mut *requests {
        let DiskRequest { sector, buffer, header, response, .. } = request;
        // SAFETY: the requests are borrowed until they are done or the device is reset, and nobody
        // looks at them before.
        let started = unsafe {
            match request.way {
                Way::Read => driver.read_blocks_nb(*sector, header, buffer, response),
                Way::Write => driver.write_blocks_nb(*sector, header, buffer, response),
            }
        };
        request.token = match started {
            Ok(token) => Some(token),
            Err(error) => fail!("{}: {error}", told(request)),
        };
    }
    for _ in 0..requests.len() {
        let token = wait(driver)?;
        let Some(request) = requests.iter_mut().find(|one| one.token == Some(token)) else {
            fail!("the device is done with chain {token}, which nobody waits for")
        };
        if let Err(error) = complete(driver, token, request) {
            fail!("{}: {error}, {:?}", told(request), request.response);
        }
        request.token = None;
    }
    Ok(())
}

fn complete<S: StaticDevice<Platform = Kernel>>(
    driver: &mut Driver<'_, S>,
    token: u16,
    request: &mut DiskRequest<'_>,
) -> Result<(), Error> {
    let DiskRequest { buffer, header, response, .. } = request;
    // SAFETY: the same buffers as the request was started with.
    unsafe {
        match request.way {
            Way::Read => driver.complete_read_blocks(token, header, buffer, response),
            Way::Write => driver.complete_write_blocks(token, header, buffer, response),
        }
    }
}

/// The next chain that the device is done with.
fn wait<S: StaticDevice<Platform = Kernel>>(
    driver: &mut Driver<'_, S>,
) -> Result<u16, TestOutcome> {
    for _ in 0..PATIENCE {
        if let Some(token) = driver.peek_used() {
            return Ok(token);
        }
        hint::spin_loop();
    }
    fail!("the device is not done after {PATIENCE} looks")
}

fn told(request: &DiskRequest<'_>) -> alloc::string::String {
    let DiskRequest { way, sector, buffer, .. } = request;
    alloc::format!("{way:?} of {} sectors from {sector} on", buffer.len() / SECTOR_SIZE)
}
