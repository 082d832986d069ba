//! What is the disk, and did its queues get exchanged memory?

use super::{Identity, start};
use crate::drivers::memory::Narrow;
use crate::drivers::nvme::NVME;
use crate::say;
use crate::selftest::drivers::tally::DriverTally;
use crate::selftest::drivers::watch::{self, AddressKind};
use crate::selftest::drivers::{examine, find, is_balanced, nothing_in_reach};
use crate::selftest::{Check, TestContext, fail};
use crate::vcpu::xen;

/// The number of bytes that identify a controller, its namespaces and a namespace.
const IDENTIFIED: usize = 3 * 4096;

/// Identifies the disk, by the narrow mask, and checks all memory that its driver got.
pub fn identify(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let device = find(context, NVME)?;
    nothing_in_reach(machine)?;
    let tally = DriverTally::start("nvme");
    let since = xen().calls();
    let (disk, identity) = start::<Narrow>(device)?;
    tally.moved(IDENTIFIED);
    tally.finish()?;
    let handed = watch::take();
    let Identity { serial, model, firmware } = identity;
    let info = disk.info().device;
    say!(
        "# nvme-identify: {}, {model}, firmware {firmware}, serial number {serial}",
        disk.device()
    );
    say!(
        "# nvme-identify: {} blocks of {} bytes, at most {} KiB for each request",
        info.num_blocks,
        info.logical_block_size,
        disk.max_transfer() >> 10
    );
    handed.iter().for_each(|one| say!("# nvme-identify: {one}"));
    let calls = xen().calls() - since;
    for one in &handed {
        examine(machine, one)?;
        if one.how != AddressKind::Allocated {
            fail!("expected all memory to be allocated, got {one}");
        }
    }
    let exchanged = handed.iter().map(|one| one.exchanges).sum::<u64>();
    if machine.exchanger().is_some() && exchanged == 0 {
        fail!("no memory was exchanged in {calls} hypercalls, although none was within the mask");
    }
    drop(disk);
    is_balanced()
}
