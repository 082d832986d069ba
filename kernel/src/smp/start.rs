//! Starting the vCPUs that Xen has configured for the domain.

use core::fmt;

use hypercall::ops::VcpuOp;
use hypercall::{Xen, XenErrno};

use super::memory;
use super::work::idle;
use crate::console::say;
use crate::guest::guest;
use crate::machine::Machine;
use crate::time::Deadline;
use crate::vcpu::{self, Local, MAX, VcpuId, xen};
use crate::{events, trace};

/// How many seconds of system time the first vCPU waits until the others are up.
///
/// The limit is high because emulated machines are slow.
const TIMEOUT_SECONDS: u64 = 30;

/// The reason why a vCPU is not up.
enum StartError {
    /// The guest has no free frames for the stacks and data.
    NoMemory,
    /// Xen refused a step.
    Refused(&'static str, XenErrno),
    /// The vCPU was started and did not reach its loop in time.
    Silent,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no frames for its stacks"),
            Self::Refused(step, errno) => write!(f, "{step}: {errno}"),
            Self::Silent => write!(f, "started, but not in its loop after {TIMEOUT_SECONDS} s"),
        }
    }
}

/// Returns the number of vCPUs that Xen has configured for this domain, up or not.
pub fn configured() -> u32 {
    // SAFETY: the call only returns a number.
    (0..).find(|id| unsafe { xen().vcpu_op(VcpuOp::IsUp, *id) }.is_err()).unwrap_or(0)
}

/// Makes Xen deliver events to this vCPU, starts all others, and waits until they are up.
///
/// Prints each vCPU that does not come up. The kernel does not use such a vCPU.
pub fn start(machine: &Machine) {
    let configured = configured();
    if configured > MAX {
        say!(
            "# vcpus: {} of {configured} stay down, because the kernel uses at most {MAX}",
            configured - MAX
        );
    }
    if let Err((step, errno)) = events::start() {
        say!("# vcpus: only vCPU 0 is used, because Xen refused events: {step}: {errno}");
        return;
    }
    let mut started = [None; MAX as usize];
    for id in (1..configured).filter_map(VcpuId::new) {
        match start_one(machine, id) {
            Ok(local) => started[id.index()] = Some(local),
            Err(why) => print_not_up(id, &why),
        }
    }
    let deadline = Deadline::in_seconds(TIMEOUT_SECONDS);
    for local in started.into_iter().flatten() {
        if !events::wait_until(deadline, || local.events.has_answered()) {
            print_not_up(local.id, &StartError::Silent);
        }
    }
    say!("# vcpus: {} of {configured} up", vcpu::count());
}

fn print_not_up(id: VcpuId, why: &StartError) {
    say!("# vcpus: vCPU {} is not up: {why}", id.number());
}

/// Allocates the data of a vCPU and starts the vCPU.
fn start_one(machine: &Machine, id: VcpuId) -> Result<&'static Local, StartError> {
    let local = memory::local(machine, id).ok_or(StartError::NoMemory)?;
    trace::configure_other(machine, &local.xen);
    events::bind(local).map_err(|(step, errno)| StartError::Refused(step, errno))?;
    // SAFETY: the stacks were just made for this vCPU, which runs only once it is up.
    unsafe { guest().initialise_vcpu(local, entry) }
        .map_err(|errno| StartError::Refused("VCPUOP_initialise", errno))?;
    // SAFETY: Xen has just accepted the vCPU's first state.
    unsafe { xen().vcpu_op(VcpuOp::Up, id.number()) }
        .map_err(|errno| StartError::Refused("VCPUOP_up", errno))?;
    Ok(local)
}

/// The first function of a vCPU, which runs on its own stack with events masked.
extern "C" fn entry(local: &'static Local) -> ! {
    guest().enter_vcpu(local);
    assert_eq!(vcpu::current(), local.id, "the GS base is that of another vCPU");
    local.list();
    events::arrived();
    idle()
}
