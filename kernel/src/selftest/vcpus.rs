//! Are all vCPUs up, each with what belongs to it alone, and do they sleep when there is no work?

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use hypercall::abi::vcpu::{RUNSTATE_BLOCKED, RUNSTATE_RUNNABLE, RUNSTATE_RUNNING, RunstateInfo};
use hypercall::ops::{VcpuOp, VersionOp};
use hypercall::trace::Hypercall;
use hypercall::{VirtAddr, Xen};
use spin::Mutex;

use super::{Check, Test, TestOutcome, error, fail, skip};
use crate::events;
use crate::smp::{self, Undelivered};
use crate::time::Deadline;
use crate::traps::{try_read, try_write};
use crate::vcpu::{self, VcpuId, xen};
use crate::{layout, say};

/// How long a vCPU may take to fall asleep, in seconds of system time. Only a hang comes near it.
const PATIENCE: u64 = 30;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("vcpus-online", |_| online()));
    tests.push(Test::new("vcpus-work", |_| work()));
    tests.push(Test::new("vcpus-wake-ups", |_| wake_ups()));
    tests.push(Test::new("vcpus-fault", |_| fault()));
    tests.push(Test::new("vcpus-idle-blocks", |_| idle_blocks()));
    tests.push(Test::new("vcpus-masked", |_| masked()));
}

/// Xen has them up, and each has answered.
fn online() -> Check {
    let configured = smp::configured();
    for id in (0..configured).take(vcpu::MAX as usize) {
        // SAFETY: asks a question.
        match unsafe { xen().vcpu_op(VcpuOp::IsUp, id) } {
            Ok(1) => {}
            other => fail!("vCPU {id}: VCPUOP_is_up answers {other:?}"),
        }
        let answered =
            vcpu::online().any(|vcpu| vcpu.id.number() == id && vcpu.events.has_answered());
        if !answered {
            fail!("vCPU {id} is up, but has not answered");
        }
    }
    if vcpu::count() != configured.min(vcpu::MAX) as usize {
        fail!("{} vCPUs have answered, Xen has {configured}", vcpu::count());
    }
    Ok(())
}

/// What a vCPU saw of itself.
#[derive(Clone, Copy, Debug)]
struct VcpuIdentity {
    told: VcpuId,
    is: VcpuId,
    /// Where a variable of its lies.
    stack: u64,
    /// Where its data lies.
    local: u64,
    /// Whether its events were masked, which work is not done under.
    masked: bool,
}

/// Each runs work as itself, on its own stack, with its own data and trace.
fn work() -> Check {
    let seen = Mutex::new(Vec::with_capacity(vcpu::MAX as usize));
    // What the trace of each has of the hypercall that each is to make.
    let traced = || {
        let row = |vcpu: &vcpu::Local| vcpu.xen.summary().row(Hypercall::XenVersion).calls;
        vcpu::online().map(row).collect::<Vec<_>>()
    };
    let (before, sent) = (traced(), vcpu::notifications());
    everywhere(&|told| {
        // Asked for the trace alone.
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
    })?;
    // One to each of the others, and one back from the last.
    let others = vcpu::count() as u64 - 1;
    let sent = vcpu::notifications() - sent;
    if sent != others + others.min(1) {
        fail!("work for {others} other vCPUs took {sent} notifications");
    }
    let after = traced();
    if before.iter().zip(&after).any(|(before, after)| before + 1 != *after) {
        fail!("one hypercall on each took the traces from {before:?} to {after:?} of its kind");
    }
    let seen = seen.into_inner();
    if seen.len() != vcpu::count() {
        fail!("{} of {} vCPUs have run the work", seen.len(), vcpu::count());
    }
    for vcpu in vcpu::online() {
        let mine = |it: &&VcpuIdentity| it.told == vcpu.id;
        let Some(one) = seen.iter().find(mine).filter(|_| seen.iter().filter(mine).count() == 1)
        else {
            fail!("vCPU {} has not run the work once: {seen:x?}", vcpu.id.number());
        };
        let right = one.is == vcpu.id
            && !one.masked
            && one.local == core::ptr::from_ref(vcpu) as u64
            && vcpu.stack.holds(one.stack);
        if !right {
            fail!("vCPU {} saw {one:x?}", vcpu.id.number());
        }
        let shares = |other: &&VcpuIdentity| other.told != vcpu.id && vcpu.stack.holds(other.stack);
        if let Some(other) = seen.iter().find(shares) {
            fail!("vCPU {} runs on the stack of vCPU {}", other.is.number(), vcpu.id.number());
        }
    }
    side_by_side()
}

/// Two vCPUs can each wait for what the other one does.
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
        Ok(id) => fail!("what was to run on vCPU 0 ran on vCPU {}", id.number()),
        Err(why) => error!("{why}"),
    }
}

/// No wake-up gets lost, whoever gives it: a guest in which one does stands still.
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
        fail!("{} pieces of work were done, not {expected}", ran.load(Ordering::Relaxed));
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
        // The first vCPU waits for this, and takes no work meanwhile.
        if smp::run_on(VcpuId::BOOT, &|| {}, || {}) != Err(Undelivered::Busy(VcpuId::BOOT)) {
            *refused.lock() = Some(Undelivered::Offline(VcpuId::BOOT));
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

/// Each comes back from accesses that fault.
fn fault() -> Check {
    // (what, its fault's error code or none)
    let guard = VirtAddr::new(pvh_boot::boot_stack().guard);
    let constant = VirtAddr::new(layout::image().rodata.0);
    let wrong = Mutex::new(None);
    everywhere(&|id| {
        let mut word = 0x1234_u64;
        let own = VirtAddr::from_ptr(&raw mut word);
        // SAFETY: the word is this closure's, and the other two can't be written.
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
    // Still there?
    everywhere(&|_| {})
}

/// A vCPU without work leaves its processor.
fn idle_blocks() -> Check {
    let others: Vec<_> = vcpu::online().filter(|vcpu| vcpu.id != vcpu::current()).collect();
    if others.is_empty() {
        skip!("there is one vCPU, and it runs this");
    }
    for vcpu in others {
        let id = vcpu.id;
        let deadline = Deadline::in_seconds(PATIENCE);
        let before = loop {
            let info = runstate(id)?;
            if info.state == RUNSTATE_BLOCKED {
                break info;
            }
            if deadline.has_passed() {
                fail!("vCPU {} does not sleep: {info:?}", id.number());
            }
        };
        let fired = vcpu.events.fired();
        let after = loop {
            let info = runstate(id)?;
            if info.time[RUNSTATE_BLOCKED as usize] > before.time[RUNSTATE_BLOCKED as usize] {
                break info;
            }
            if info.state != RUNSTATE_BLOCKED || deadline.has_passed() {
                fail!("vCPU {} slept, and now {info:?}", id.number());
            }
        };
        let active = |info: &RunstateInfo| {
            info.time[RUNSTATE_RUNNING as usize] + info.time[RUNSTATE_RUNNABLE as usize]
        };
        if active(&before) != active(&after) {
            fail!("vCPU {} ran without work: {before:?}, then {after:?}", id.number());
        }
        // It was the sleep that ends by an event.
        if let Err(why) = smp::run_on(id, &|| {}, || {}) {
            error!("{why}");
        }
        if vcpu.events.fired() == fired {
            fail!("vCPU {} has done work, but its port has not fired", id.number());
        }
    }
    Ok(())
}

fn runstate(id: VcpuId) -> Result<RunstateInfo, TestOutcome> {
    let mut info = RunstateInfo::default();
    // SAFETY: Xen fills the structure.
    match unsafe { xen().vcpu_op(VcpuOp::GetRunstateInfo(&mut info), id.number()) } {
        Ok(_) => Ok(info),
        Err(errno) => error!("VCPUOP_get_runstate_info of vCPU {}: {errno}", id.number()),
    }
}

/// Events are masked for short stretches alone.
fn masked() -> Check {
    // So that there is something to measure with one vCPU, too.
    fault()?;
    let longest = events::longest_masked();
    say!(
        "# vcpus: longest stretch with events masked: {longest} TSC ticks (instructions under \
         -icount)"
    );
    if longest == 0 {
        fail!("nothing was measured");
    }
    Ok(())
}

fn everywhere(work: &(dyn Fn(VcpuId) + Sync)) -> Check {
    match smp::everywhere(work) {
        Ok(()) => Ok(()),
        Err(why) => error!("{why}"),
    }
}
