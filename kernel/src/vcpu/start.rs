//! Starting the vCPUs that Xen has configured.

use core::fmt;

use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};

use super::memory::{self, Area};
use super::work::idle;
use super::{Local, MAX, VcpuId, local, pv, pvh};
use crate::events::{self, Deadline};
use crate::hypervisor::{self, xen};
use crate::kind::Kind;
use crate::machine::Machine;
use crate::say;

/// How long the first vCPU waits for an answer of the others, in seconds of system time. Emulated
/// machines are slow and this ends no wait that goes well.
const PATIENCE: u64 = 30;

/// Why a vCPU is not up.
enum Down {
    /// The guest has no frames for its stack and data.
    NoMemory,
    /// Xen refused a step.
    Refused(&'static str, XenErrno),
    /// It was started and has not said a word.
    Silent,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no frames for its stack"),
            Self::Refused(step, errno) => write!(f, "{step}: {errno}"),
            Self::Silent => write!(f, "started, but silent for {PATIENCE} s"),
        }
    }
}

/// How many vCPUs Xen has for this domain, up or not.
pub fn configured() -> u32 {
    // SAFETY: asks a question.
    (0..).find(|id| unsafe { xen().vcpu_op(VcpuOp::IsUp, *id) }.is_err()).unwrap_or(0)
}

/// Has events delivered on this vCPU, starts all others, and waits until each has answered. One
/// that does not is named on the console, and left alone.
pub fn start(machine: &Machine) {
    let configured = configured();
    if configured > MAX {
        say!("# vcpus: {} of {configured} are left down: they are above {MAX}", configured - MAX);
    }
    if let Err((step, errno)) = events::start(machine.kind) {
        say!("# vcpus: events can't be had, only vCPU 0 is used: {step}: {errno}");
        return;
    }
    let mut started = [None; MAX as usize];
    for id in (1..configured).filter_map(VcpuId::new) {
        match start_one(machine, id) {
            Ok(local) => started[id.index()] = Some(local),
            Err(why) => not_up(id, &why),
        }
    }
    let deadline = Deadline::in_seconds(PATIENCE);
    for local in started.into_iter().flatten() {
        if !events::wait_until(deadline, || local.events.has_answered()) {
            not_up(local.id, &Down::Silent);
        }
    }
    say!("# vcpus: {} of {configured} up", super::count());
}

fn not_up(id: VcpuId, why: &Down) {
    say!("# vcpus: vCPU {} is not up: {why}", id.number());
}

/// Makes a vCPU and sets it off.
fn start_one(machine: &Machine, id: VcpuId) -> Result<&'static Local, Down> {
    let area = memory::area(machine, id).ok_or(Down::NoMemory)?;
    hypervisor::show_like_boot(&area.local.xen);
    area.local.events.bind(id).map_err(|(step, errno)| Down::Refused(step, errno))?;
    let initialised = match machine.kind {
        Kind::Pv => pv::initialise(area),
        Kind::Pvh => pvh::initialise(area),
    };
    initialised.map_err(|errno| Down::Refused("VCPUOP_initialise", errno))?;
    // SAFETY: it has just been given its state.
    unsafe { xen().vcpu_op(VcpuOp::Up, id.number()) }
        .map_err(|errno| Down::Refused("VCPUOP_up", errno))?;
    Ok(&area.local)
}

/// The first Rust of a vCPU, on its own stack, with its GS base and its traps, events masked.
pub fn arrived(area: &'static Area) -> ! {
    let me = local();
    assert_eq!(me.id, area.local.id, "the GS base is that of another vCPU");
    me.list();
    events::arrived();
    idle()
}
