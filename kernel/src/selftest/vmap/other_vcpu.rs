//! Can another vCPU reach the old frames after an exchange?
//!
//! A second vCPU reads through an area in a loop, even after the owner has unmapped it. No correct
//! kernel does this. Meanwhile the first vCPU exchanges the frames. After the exchange every read
//! must fault: the purge removed the entries, and the flush emptied the TLB of the second vCPU.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use xen_contig::vmap::UnmapMode;

use super::{Check, OwnedRun, Test, TestContext, TestOutcome, error, fail, map, refused, skip};
use crate::machine::{ANYWHERE, Machine};
use crate::say;
use crate::smp;
use crate::traps::try_read;
use crate::vcpu::{self, VcpuId};

/// The number of frames of the run.
const FRAMES: u64 = 16;

/// The number of rounds.
const ROUNDS: u64 = 16;

/// The number of reads after the exchange.
const READS: u64 = 256;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vmap-other-vcpu-faults", other_vcpu).needs_exchange_order(4));
}

/// The reads of the second vCPU.
#[derive(Default)]
struct VcpuReads {
    /// Successful reads before the end of the exchange.
    before: AtomicU64,
    /// Successful reads that began after the exchange.
    after: AtomicU64,
    /// Faulting reads that began after the exchange.
    faults: AtomicU64,
}

fn other_vcpu(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    if machine.exchanger().is_none() {
        skip!("a translated guest's frames do not move");
    }
    let Some(other) = vcpu::online().map(|vcpu| vcpu.id).find(|id| *id != vcpu::current()) else {
        skip!("there is one vCPU")
    };
    let seen = VcpuReads::default();
    for _ in 0..ROUNDS {
        round(machine, other, &seen)?;
    }
    let [before, after, faults] =
        [&seen.before, &seen.after, &seen.faults].map(|count| count.load(SeqCst));
    say!(
        "# vmap: {other} read {before} times, then faulted {faults} times, and still read {after} \
         times"
    );
    if after > 0 {
        fail!("{after} reads reached a frame after the exchange");
    }
    if before == 0 || faults < ROUNDS * READS {
        error!("too few accesses to test anything: {before} reads before, {faults} faults after");
    }
    Ok(())
}

fn round(machine: &Machine, other: VcpuId, seen: &VcpuReads) -> Check {
    let Some(exchanger) = machine.exchanger() else { fail!("the machine has no exchanger") };
    let run = OwnedRun::take(machine, FRAMES)?;
    let Some(mut lists) = machine.lists(2 * FRAMES) else {
        skip!("the guest has no free memory for lists")
    };
    let area = map(machine, &run, "read by another vCPU")?;
    let address = area.address();
    let (reading, through, end) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let read = || {
        let mut left = READS;
        while left > 0 && !end.load(SeqCst) {
            let is_through = through.load(SeqCst);
            let count = match (try_read(address), is_through) {
                (Ok(_), false) => &seen.before,
                (Ok(_), true) => &seen.after,
                (Err(_), true) => &seen.faults,
                // The purge is in progress.
                (Err(_), false) => continue,
            };
            count.fetch_add(1, SeqCst);
            reading.store(true, SeqCst);
            left -= u64::from(is_through);
        }
    };
    let exchange = || -> Check {
        while !reading.load(SeqCst) {
            core::hint::spin_loop();
        }
        let unmapped = area.unmap(UnmapMode::Lazy);
        let result = exchanger.acquire(run.into_run(), ANYWHERE, lists.words());
        if unmapped.is_err() || result.is_err() {
            end.store(true, SeqCst);
        }
        through.store(true, SeqCst);
        let result = result.and_then(|extent| exchanger.release(extent, lists.words()));
        let refusal = match result {
            Ok(run) => {
                machine.give(run);
                None
            }
            Err(failure) => Some(refused(machine, "the exchange failed", failure)),
        };
        unmapped?;
        refusal.map_or(Ok(()), Err)
    };
    match smp::run_on(other, &read, exchange) {
        Ok(result) => result,
        Err(undelivered) => Err(TestOutcome::Error(alloc::format!("{undelivered}"))),
    }
}
