//! Stopping the other vCPUs, so that a panic has the console to itself.

use hypercall::Xen;
use hypercall::abi::vcpu::{RUNSTATE_RUNNING, RunstateInfo};
use hypercall::ops::{SchedOp, VcpuOp};

use super::local::{current, online};
use crate::hypervisor::untraced;

/// The number of times that the kernel asks Xen whether a vCPU has left its processor.
///
/// Xen interrupts the vCPU at once. The limit only keeps a panic from waiting forever.
const PROBES: u32 = 100_000;

/// Stops every other vCPU for good.
///
/// Ignores errors, because the caller is a panic whose message is more important.
pub fn stop_others() {
    let me = current();
    for id in online().map(|local| local.id).filter(|id| *id != me) {
        // SAFETY: stopping a vCPU changes no memory, and its stack and data stay allocated.
        let _stopped = unsafe { untraced().vcpu_op(VcpuOp::Down, id.number()) };
        for _ in 0..PROBES {
            let mut info = RunstateInfo::default();
            let ask = VcpuOp::GetRunstateInfo(&mut info);
            // SAFETY: Xen writes the structure, which is borrowed for the call.
            let asked = unsafe { untraced().vcpu_op(ask, id.number()) };
            if asked.is_err() || info.state != RUNSTATE_RUNNING {
                break;
            }
            let _best_effort = untraced().sched_op(SchedOp::Yield);
        }
    }
}
