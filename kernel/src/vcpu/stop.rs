//! Stopping the other vCPUs, so that a panic has the console to itself.

use hypercall::Xen;
use hypercall::abi::vcpu::{RUNSTATE_RUNNING, RunstateInfo};
use hypercall::ops::{SchedOp, VcpuOp};

use super::{current, online};
use crate::hypervisor::untraced;

/// How often the kernel looks whether a vCPU has left its processor. Xen interrupts that one at
/// once, so this is only what keeps a panic from waiting for good.
const LOOKS: u32 = 100_000;

/// Stops every other vCPU for good, in the middle of whatever it does.
///
/// Errors are left aside: this is for a panic, which has something more important to say.
pub fn stop_others() {
    let me = current();
    for id in online().map(|local| local.id).filter(|id| *id != me) {
        // SAFETY: the vCPU keeps its state and does not run on.
        let _stopped = unsafe { untraced().vcpu_op(VcpuOp::Down, id.number()) };
        for _ in 0..LOOKS {
            let mut info = RunstateInfo::default();
            let ask = VcpuOp::GetRunstateInfo(&mut info);
            // SAFETY: Xen fills the structure.
            let asked = unsafe { untraced().vcpu_op(ask, id.number()) };
            if asked.is_err() || info.state != RUNSTATE_RUNNING {
                break;
            }
            let _best_effort = untraced().sched_op(SchedOp::Yield);
        }
    }
}
