//! Are all vCPUs up, each with its own data, and do they sleep without work?

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use hypercall::abi::vcpu::{RUNSTATE_BLOCKED, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING, RunstateInfo};
use hypercall::ops::{VcpuOp, VersionOp};
use hypercall::trace::Hypercall;
use hypercall::{VirtAddr, Xen};
use spin::Mutex;

use super::sent_events::{of_a_job, sent_during};
use super::{Check, Test, TestOutcome, error, fail, skip};
use crate::events;
use crate::smp::{self, WorkError};
use crate::time::Deadline;
use crate::traps::{try_read, try_write};
use crate::tsc::tsc;
use crate::vcpu::{self, VcpuId, xen};
use crate::{layout, say};

/// How long a vCPU may take to sleep, in seconds of system time. Only a vCPU that hangs needs so
/// long.
const TIMEOUT_SECONDS: u64 = 30;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vcpus-online", |_| online()));
    tests.push(Test::new("vcpus-work", |_| work()));
    tests.push(Test::new("vcpus-wake-ups", |_| wake_ups()));
    tests.push(Test::new("vcpus-fault", |_| fault()));
    tests.push(Test::new("vcpus-idle-blocks", |_| idle_blocks()));
    tests.push(Test::new("vcpus-masked", |_| masked()));
}

/// Checks that every vCPU is up in Xen and has reached its loop.
fn online() -> Check {
    let configured = smp::configured();
    for id in (0..configured).take(vcpu::MAX as usize) {
        // SAFETY: the call only returns a number.
        match unsafe { xen().vcpu_op(VcpuOp::IsUp, id) } {
            Ok(1) => {}
            other => fail!("vCPU {id}: VCPUOP_is_up returned {other:?}"),
        }
        let answered =
            vcpu::online().any(|vcpu| vcpu.id.number() == id && vcpu.events.has_answered());
        if !answered {
            fail!("vCPU {id} is up, but has not reached its loop");
        }
    }
    if vcpu::count() != configured.min(vcpu::MAX) as usize {
        fail!(
            "{} vCPUs have reached their loop, but Xen has configured {configured}",
            vcpu::count()
        );
    }
    Ok(())
}

/// What a vCPU observed about itself.
#[derive(Clone, Copy, Debug)]
struct VcpuIdentity {
    told: VcpuId,
    is: VcpuId,
    /// The address of a local variable.
    stack: u64,
    /// The address of its data.
    local: u64,
    /// True if its events were masked. Work must run with events unmasked.
    masked: bool,
}

/// Checks that each vCPU runs work on its own stack, with its own data and trace.
fn work() -> Check {
    let seen = Mutex::new(Vec::with_capacity(vcpu::MAX as usize));
    // Returns how often each trace contains the hypercall that the work makes.
    let traced = || {
        let row = |vcpu: &vcpu::Local| vcpu.xen.summary().row(Hypercall::XenVersion).calls;
        vcpu::online().map(row).collect::<Vec<_>>()
    };
    let before = traced();
    let work = |told| {
        // The call exists only for the trace.
        let _version = xen().xen_version(VersionOp::Version);
        let marker = 0_u8;
        let me = vcpu::local();
        let local = core::ptr::from_ref(me) as u64;
        let stack = &raw const marker as u64;
        seen.lock().push(VcpuIdentity {
            told,
            is: me.id,
            stack,
            local,
            masked: events::is_masked(),
        });
    };
    let (done, sent) = sent_during(|| everywhere(&work))?;
    done?;
    if sent != of_a_job() {
        fail!("a job for all vCPUs needed {sent} events, expected {}", of_a_job());
    }
    let after = traced();
    if before.iter().zip(&after).any(|(before, after)| before + 1 != *after) {
        fail!("each vCPU made one hypercall, but the counts went from {before:?} to {after:?}");
    }
    let seen = seen.into_inner();
    if seen.len() != vcpu::count() {
        fail!("{} of {} vCPUs have run the work", seen.len(), vcpu::count());
    }
    for vcpu in vcpu::online() {
        let mine = |it: &&VcpuIdentity| it.told == vcpu.id;
        let Some(one) = seen.iter().find(mine).filter(|_| seen.iter().filter(mine).count() == 1)
        else {
            fail!("vCPU {} did not run the work exactly once: {seen:x?}", vcpu.id.number());
        };
        let right = one.is == vcpu.id
            && !one.masked
            && one.local == core::ptr::from_ref(vcpu) as u64
            && vcpu.stack.holds(one.stack);
        if !right {
            fail!("vCPU {} observed wrong data: {one:x?}", vcpu.id.number());
        }
        let shares = |other: &&VcpuIdentity| other.told != vcpu.id && vcpu.stack.holds(other.stack);
        if let Some(other) = seen.iter().find(shares) {
            fail!("vCPU {} runs on the stack of vCPU {}", other.is.number(), vcpu.id.number());
        }
    }
    side_by_side()
}

/// Checks that two vCPUs run at the same time: each waits for the other.
fn side_by_side() -> Check {
    let Some(other) = vcpu::online().map(|vcpu| vcpu.id).find(|id| *id != vcpu::current()) else {
        return Ok(());
    };
    let turn = AtomicU64::new(0);
    let wait_for = |value| {
        while turn.load(Ordering::Acquire) != value {
            core::hint::spin_loop();
        }
    };
    let there = || {
        wait_for(1);
        turn.store(2, Ordering::Release);
    };
    let here = || {
        turn.store(1, Ordering::Release);
        wait_for(2);
        vcpu::current()
    };
    match smp::run_on(other, &there, here) {
        Ok(VcpuId::BOOT) => Ok(()),
        Ok(id) => fail!("the caller's function ran on vCPU {}, expected vCPU 0", id.number()),
        Err(why) => error!("{why}"),
    }
}

/// Checks that no wake-up is lost, whichever vCPU sends it. A lost one stops the guest.
fn wake_ups() -> Check {
    const ROUNDS: u64 = 200;
    let ran = AtomicU64::new(0);
    for _ in 0..ROUNDS {
        everywhere(&|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        })?;
    }
    let expected = ROUNDS * vcpu::count() as u64;
    if ran.load(Ordering::Relaxed) != expected {
        fail!("{} jobs ran, expected {expected}", ran.load(Ordering::Relaxed));
    }
    let mut others = vcpu::online().map(|vcpu| vcpu.id).filter(|id| *id != vcpu::current());
    let (Some(second), Some(third)) = (others.next(), others.next()) else { return Ok(()) };
    let refused = Mutex::new(None);
    let from_second = || {
        for _ in 0..ROUNDS {
            if let Err(why) = smp::run_on(third, &|| {}, || {}) {
                *refused.lock() = Some(why);
            }
        }
        // The first vCPU waits for this function and accepts no work meanwhile.
        if smp::run_on(VcpuId::BOOT, &|| {}, || {}) != Err(WorkError::Busy(VcpuId::BOOT)) {
            *refused.lock() = Some(WorkError::Offline(VcpuId::BOOT));
        }
    };
    if let Err(why) = smp::run_on(second, &from_second, || {}) {
        error!("{why}");
    }
    match refused.into_inner() {
        Some(why) => fail!("from vCPU {}: {why}", second.number()),
        None => Ok(()),
    }
}

/// Checks that each vCPU continues after accesses that fault.
fn fault() -> Check {
    let guard = VirtAddr::new(pvh_boot::boot_stack().guard);
    let constant = VirtAddr::new(layout::image().rodata.0);
    let wrong = Mutex::new(None);
    everywhere(&|id| {
        let mut word = 0x1234_u64;
        let own = VirtAddr::from_ptr(&raw mut word);
        // SAFETY: the word belongs to this closure, and the other two addresses are not writable.
        let writes =
            unsafe { [try_write(own, 0x5678), try_write(guard, 0), try_write(constant, 0)] };
        let reads = [try_read(own), try_read(guard), try_read(VirtAddr::zero())];
        let error = |result: Result<u64, _>| match result {
            Ok(value) => Err(value),
            Err(fault) => Ok(fault),
        };
        let reads = reads.map(error);
        let right = matches!(&reads, [Err(0x5678), Ok(stack), Ok(null)]
                if stack.address == guard && stack.error & 3 == 0
                    && null.address.is_null() && null.error & 3 == 0)
            && matches!(&writes, [Ok(()), Err(stack), Err(text)]
                if stack.error & 3 == 2 && text.error & 3 == 3);
        if !right {
            *wrong.lock() = Some((id, reads, writes));
        }
    })?;
    if let Some((id, reads, writes)) = wrong.into_inner() {
        fail!("vCPU {}: reads {reads:x?}, writes {writes:x?}", id.number());
    }
    // All vCPUs must still accept work.
    everywhere(&|_| {})
}

/// Checks that a vCPU without work leaves its processor.
fn idle_blocks() -> Check {
    let others: Vec<_> = vcpu::online().filter(|vcpu| vcpu.id != vcpu::current()).collect();
    if others.is_empty() {
        skip!("there is one vCPU, and it runs this");
    }
    for vcpu in others {
        let id = vcpu.id;
        let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
        let before = loop {
            let info = runstate(id)?;
            if info.state == RUNSTATE_BLOCKED {
                break info;
            }
            if deadline.has_passed() {
                fail!("vCPU {} did not sleep in {TIMEOUT_SECONDS} s: {info:?}", id.number());
            }
        };
        let fired = vcpu.events.fired();
        let after = loop {
            let info = runstate(id)?;
            if info.time[RUNSTATE_BLOCKED as usize] > before.time[RUNSTATE_BLOCKED as usize] {
                break info;
            }
            if info.state != RUNSTATE_BLOCKED || deadline.has_passed() {
                fail!("vCPU {} left its sleep without an event: {info:?}", id.number());
            }
        };
        let active = |info: &RunstateInfo| {
            info.time[RUNSTATE_RUNNING as usize] + info.time[RUNSTATE_RUNNABLE as usize]
        };
        if active(&before) != active(&after) {
            fail!("vCPU {} ran without work: {before:?}, then {after:?}", id.number());
        }
        // The sleep must be the one that ends with an event.
        if let Err(why) = smp::run_on(id, &|| {}, || {}) {
            error!("{why}");
        }
        if vcpu.events.fired() == fired {
            fail!("vCPU {} did work, but its port received no event", id.number());
        }
    }
    Ok(())
}

fn runstate(id: VcpuId) -> Result<RunstateInfo, TestOutcome> {
    let mut info = RunstateInfo::default();
    // SAFETY: Xen writes the structure, which is borrowed for the call.
    match unsafe { xen().vcpu_op(VcpuOp::GetRunstateInfo(&mut info), id.number()) } {
        Ok(_) => Ok(info),
        Err(errno) => error!("VCPUOP_get_runstate_info of vCPU {}: {errno}", id.number()),
    }
}

/// Checks that periods with events masked are measured, and that none is long.
///
/// Time depends on the machine, and an emulator may stop at any instruction. Therefore the shortest
/// of several rounds counts, and its limit is the longest time of a hundred hypercalls. A period has
/// fewer instructions than one hypercall.
fn masked() -> Check {
    const ROUNDS: u32 = 16;
    let longest = events::longest_masked();
    say!(
        "# vcpus-masked: longest period with events masked: {longest} TSC ticks (instructions \
         under -icount)"
    );
    measured()?;
    let (mut shortest, mut limit) = (u64::MAX, 0);
    for _ in 0..ROUNDS {
        events::forget_masked();
        // Each fault and each event masks events, and so does each vCPU before it sleeps.
        fault()?;
        shortest = shortest.min(events::longest_masked());
        limit = limit.max(ticks_of_hypercalls());
    }
    events::forget_masked();
    if shortest == 0 || shortest >= limit {
        fail!(
            "in each of {ROUNDS} rounds, events were masked for {shortest} ticks or more, expected \
             more than 0 and less than {limit}, the time of {HYPERCALLS} hypercalls"
        );
    }
    Ok(())
}

/// Checks that a period of known length is measured: neither shorter nor longer.
fn measured() -> Check {
    events::forget_masked();
    let before = tsc();
    events::mask();
    let least = ticks_of_hypercalls();
    events::unmask();
    let most = tsc() - before;
    let found = events::longest_masked();
    if !(least..=most).contains(&found) {
        fail!("a masked period of {least} to {most} ticks was measured as {found}");
    }
    Ok(())
}

/// The number of hypercalls whose time is the limit of a period with events masked.
const HYPERCALLS: u32 = 100;

/// Makes hypercalls that have no effect. Returns how many ticks of the TSC they took.
fn ticks_of_hypercalls() -> u64 {
    let start = tsc();
    for _ in 0..HYPERCALLS {
        let _version = xen().xen_version(VersionOp::Version);
    }
    tsc() - start
}

fn everywhere(work: &(dyn Fn(VcpuId) + Sync)) -> Check {
    match smp::everywhere(work) {
        Ok(()) => Ok(()),
        Err(why) => error!("{why}"),
    }
}
