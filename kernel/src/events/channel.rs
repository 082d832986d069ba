//! The port of each vCPU: binding it, sending to it, and handling its events.

use hypercall::Xen;
use hypercall::ops::{EventChannelOp, Port};

use crate::guest::{Refused, guest};
use crate::shared_page;
use crate::tsc::tsc;
use crate::vcpu::{self, Local, local, xen};

/// Binds the port by which other vCPUs wake `target`.
///
/// # Errors
/// Xen refused a step.
pub fn bind(target: &Local) -> Result<(), Refused> {
    let port = xen()
        .event_channel_op(EventChannelOp::BindIpi { vcpu: target.id.number() })
        .map_err(|errno| ("EVTCHNOP_bind_ipi", errno))?;
    let port = Port(port as u32);
    target.events.set_port(port);
    xen()
        .event_channel_op(EventChannelOp::Unmask(port))
        .map_err(|errno| ("EVTCHNOP_unmask", errno))?;
    Ok(())
}

/// Makes Xen deliver events to the vCPU that boots, and unmasks them there.
///
/// # Errors
/// Xen refused a step.
pub fn start() -> Result<(), Refused> {
    guest().deliver_events()?;
    bind(local())?;
    local().events.set_answered();
    guest().unmask_events();
    Ok(())
}

/// Records that this vCPU is up, and unmasks its events.
pub fn arrived() {
    local().events.set_answered();
    guest().unmask_events();
    if let Some(boot) = vcpu::online().next() {
        notify(boot);
    }
}

/// Wakes a vCPU. If it is awake, it checks for work once more before it sleeps.
pub fn notify(target: &Local) {
    if let Err(errno) = xen().event_channel_op(EventChannelOp::Send(target.events.port())) {
        panic!("notifying vCPU {}: {errno}", target.id.number());
    }
}

/// Handles an event that was delivered at the TSC's `since`.
pub fn upcall(since: u64) {
    let me = local();
    if shared_page::take(me.id, me.events.port()) {
        me.events.count_fired();
    }
    masked_since(since);
}

/// Records a period with events masked, from the TSC's `since` until now.
pub fn masked_since(since: u64) {
    local().events.record_masked(tsc().saturating_sub(since));
}

/// Returns the longest period for which any vCPU had events masked, in ticks of the TSC.
///
/// A period starts when events are masked, or at the first Rust instruction of a handler. It ends
/// at the last such instruction. It does not contain the 40 or so instructions with which the entry
/// saves and restores registers, nor the time that Xen needs.
pub fn longest_masked() -> u64 {
    vcpu::online().map(|vcpu| vcpu.events.longest_masked()).max().unwrap_or(0)
}

/// Makes [`longest_masked`] forget the periods so far.
pub fn forget_masked() {
    vcpu::online().for_each(|vcpu| vcpu.events.forget_masked());
}
