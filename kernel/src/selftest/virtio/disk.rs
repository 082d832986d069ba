//! The disk and its requests, several at a time.

use core::hint;

use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use xen_contig::adapters::virtio_drivers::StaticDevice;

use super::watched_hal::Watched;
use super::{Check, TestOutcome, error, fail};
use crate::drivers::memory::Kernel;
use crate::selftest::drivers::tally::DriverTally;
use crate::time::Deadline;
use crate::virtio::{BusTransport, VirtioDevice};

/// The number of requests that the driver's queue accepts at a time: 16 descriptors, three for
/// each.
pub const AT_A_TIME: usize = 5;

/// The number of seconds of system time after which the driver gives up the device.
///
/// A disk in a file needs a millisecond. A busy host may not run the device for seconds.
const LIMIT_SECONDS: u64 = 60;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the disk to memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// A request, and the memory that the device needs for it.
pub struct DiskRequest<'b> {
    way: Direction,
    sector: usize,
    buffer: &'b mut [u8],
    header: BlkReq,
    response: BlkResp,
    token: Option<u16>,
}

impl<'b> DiskRequest<'b> {
    /// Returns a request for the size of the buffer, from sector `sector` on.
    pub fn new(way: Direction, sector: usize, buffer: &'b mut [u8]) -> Self {
        let (header, response) = (BlkReq::default(), BlkResp::default());
        Self { way, sector, buffer, header, response, token: None }
    }
}

type Driver<'d, S> = VirtIOBlk<Watched<S>, BusTransport<'d>>;

/// The disk. Dropping this resets the device.
pub struct VirtioDisk<'d, S: StaticDevice<Platform = Kernel>> {
    /// `None` after a failure, when the device was reset.
    driver: Option<Driver<'d, S>>,
    tally: &'d DriverTally,
}

impl<'d, S: StaticDevice<Platform = Kernel>> VirtioDisk<'d, S> {
    /// Starts a driver for the device.
    pub fn new(device: &'d VirtioDevice, tally: &'d DriverTally) -> Result<Self, TestOutcome> {
        let transport = match device.transport::<Watched<S>>() {
            Ok(transport) => transport,
            Err(why) => error!("{why}"),
        };
        match VirtIOBlk::new(transport) {
            Ok(driver) => Ok(Self { driver: Some(driver), tally }),
            Err(error) => fail!("the driver does not start: {error}"),
        }
    }

    /// Returns the number of sectors.
    pub fn capacity(&self) -> u64 {
        self.driver.as_ref().map_or(0, VirtIOBlk::capacity)
    }

    /// Reads sectors into one buffer.
    pub fn read(&mut self, sector: usize, buffer: &mut [u8]) -> Check {
        self.transfer(&mut [DiskRequest::new(Direction::Read, sector, buffer)])
    }

    /// Gives all requests to the device and waits until they are done.
    pub fn transfer(&mut self, requests: &mut [DiskRequest<'_>]) -> Check {
        let Some(driver) = &mut self.driver else { error!("the device was reset after a failure") };
        let done = run(driver, requests);
        self.tally.moved(requests.iter().map(|one| one.buffer.len()).sum());
        if done.is_err() {
            // This resets the device, which then accesses no buffer. The caller may free its
            // buffers.
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
        // SAFETY: the requests are borrowed until they are done or the device is reset, and no code
        // accesses them before.
        let started = unsafe {
            match request.way {
                Direction::Read => driver.read_blocks_nb(*sector, header, buffer, response),
                Direction::Write => driver.write_blocks_nb(*sector, header, buffer, response),
            }
        };
        request.token = match started {
            Ok(token) => Some(token),
            Err(error) => fail!("{}: {error}", describe(request)),
        };
    }
    for _ in 0..requests.len() {
        let token = wait(driver)?;
        let Some(request) = requests.iter_mut().find(|one| one.token == Some(token)) else {
            fail!("the device finished chain {token}, which belongs to no request")
        };
        if let Err(error) = complete(driver, token, request) {
            fail!("{}: {error}, {:?}", describe(request), request.response);
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
    // SAFETY: these are the buffers with which the request was started.
    unsafe {
        match request.way {
            Direction::Read => driver.complete_read_blocks(token, header, buffer, response),
            Direction::Write => driver.complete_write_blocks(token, header, buffer, response),
        }
    }
}

/// Waits for the next chain that the device has finished.
fn wait<S: StaticDevice<Platform = Kernel>>(
    driver: &mut Driver<'_, S>,
) -> Result<u16, TestOutcome> {
    let deadline = Deadline::in_seconds(LIMIT_SECONDS);
    loop {
        if let Some(token) = driver.peek_used() {
            return Ok(token);
        }
        if deadline.has_passed() {
            fail!("the device did not finish a request in {LIMIT_SECONDS} s");
        }
        hint::spin_loop();
    }
}

fn describe(request: &DiskRequest<'_>) -> alloc::string::String {
    let DiskRequest { way, sector, buffer, .. } = request;
    alloc::format!("{way:?} of {} sectors from {sector} on", buffer.len() / SECTOR_SIZE)
}
