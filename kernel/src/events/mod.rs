//! Event channels: one port per vCPU, by which the others wake it.
//!
//! Of what Xen delivers an event for, only these ports are unmasked. The handler notes that one has
//! fired and goes back. It takes no lock, allocates nothing and prints nothing, so the spin locks
//! of the kernel (console, heap, frames, trace) may be held where an event comes in.
//!
//! Events are masked in an upcall or a recoverable fault, and where a vCPU looks for work before it
//! sleeps. The longest of these stretches is kept for each vCPU.
//!
//! | question | place |
//! |---|---|
//! | what is in the page that is shared with Xen? | [`shared`] |
//! | how does one mask, unmask, sleep? | [`mask`] |
//! | what is the system time? | [`clock`] |

mod clock;
mod mask;
mod shared;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hypercall::abi::hvm::HVM_PARAM_CALLBACK_TYPE_VECTOR;
use hypercall::ops::{EventChannelOp, HvmParamIndex, Port};
use hypercall::{Xen, XenErrno};

use super::hypervisor::xen;
use super::kind::Kind;
use super::traps;
use super::vcpu::{self, Local as Vcpu, VcpuId, local};

pub use clock::{Deadline, tsc};
pub use mask::{block, is_masked, mask, nap, unmask, wait_until};
pub use shared::{hide, map, show, take_port, tell_p2m};

/// A step of the set-up that Xen refused.
pub type Refused = (&'static str, XenErrno);

/// What events need of a vCPU.
pub struct Local {
    /// Its port; 0 is none.
    port: AtomicU32,
    /// Whether it has come to where it waits for work.
    answered: AtomicBool,
    /// How often its port has fired.
    fired: AtomicU64,
    /// Notifications that it has sent, and those that it expects back.
    sent: AtomicU64,
    /// When it masked events, by the TSC; 0 when they are not masked.
    masked_since: AtomicU64,
    /// Its longest stretch with events masked.
    longest: AtomicU64,
}

impl Local {
    /// No port yet.
    pub const fn new() -> Self {
        Self {
            port: AtomicU32::new(0),
            answered: AtomicBool::new(false),
            fired: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            masked_since: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }

    /// Makes the port by which other vCPUs wake `id`.
    pub fn bind(&self, id: VcpuId) -> Result<(), Refused> {
        let port = xen()
            .event_channel_op(EventChannelOp::BindIpi { vcpu: id.number() })
            .map_err(|errno| ("EVTCHNOP_bind_ipi", errno))?;
        let port = Port(port as u32);
        if shared::kind() == Some(Kind::Pv) {
            // Before the vCPU runs: it has to get a stack for upcalls first.
            shared::mask_upcalls(id);
        }
        self.port.store(port.0, Ordering::Release);
        xen()
            .event_channel_op(EventChannelOp::Unmask(port))
            .map_err(|errno| ("EVTCHNOP_unmask", errno))?;
        Ok(())
    }

    /// Whether the vCPU has come to where it waits for work.
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// How often its port has fired.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// How many notifications it has sent, and expected back.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn port(&self) -> Port {
        Port(self.port.load(Ordering::Acquire))
    }

    /// Keeps a stretch if it is the longest so far.
    fn keep(&self, ticks: u64) {
        self.longest.fetch_max(ticks, Ordering::Relaxed);
    }
}

/// Has events delivered, on the vCPU that boots, and enables them there.
pub fn start(kind: Kind) -> Result<(), Refused> {
    match kind {
        Kind::Pv => traps::pv::set_callbacks().map_err(|errno| ("set_callbacks", errno)),
        Kind::Pvh => {
            let via = HVM_PARAM_CALLBACK_TYPE_VECTOR | u64::from(traps::pvh::UPCALL_VECTOR);
            // SAFETY: the IDT has a handler for interrupts at this vector.
            unsafe { xen().set_hvm_param(HvmParamIndex::CallbackIrq, via) }
                .map_err(|errno| ("HVM_PARAM_CALLBACK_IRQ", errno))
        }
    }?;
    let me = local();
    me.events.bind(me.id)?;
    me.events.answered.store(true, Ordering::Release);
    mask::enable();
    Ok(())
}

/// Says that this vCPU is up, and enables its events.
pub fn arrived() {
    local().events.answered.store(true, Ordering::Release);
    mask::enable();
    if let Some(boot) = vcpu::online().next() {
        notify(boot);
    }
}

/// Wakes a vCPU, or has it look for work once more before it sleeps.
pub fn notify(target: &Vcpu) {
    local().events.sent.fetch_add(1, Ordering::Relaxed);
    send(target);
}

/// Counts the notification that another vCPU will [give](give_notice) this one: that one could count
/// it only when this one may have gone on, and may be adding up.
pub fn expect_notice() {
    local().events.sent.fetch_add(1, Ordering::Relaxed);
}

/// Wakes a vCPU that [expects](expect_notice) it.
pub fn give_notice(target: &Vcpu) {
    send(target);
}

fn send(target: &Vcpu) {
    if let Err(errno) = xen().event_channel_op(EventChannelOp::Send(target.events.port())) {
        panic!("notifying vCPU {}: {errno}", target.id.number());
    }
}

/// The handler of an event that was delivered at the TSC's `since`.
pub fn upcall(since: u64) {
    let me = local();
    if shared::take(me.id, me.events.port()) {
        me.events.fired.fetch_add(1, Ordering::Relaxed);
    }
    masked_since(since);
}

/// Accounts for a stretch with events masked that ends now.
pub fn masked_since(since: u64) {
    local().events.keep(clock::tsc().saturating_sub(since));
}

/// The longest stretch for which any vCPU had events masked since it came up, in ticks of the TSC:
/// from the first instruction of Rust's in a handler, or from masking, to the last. What the entry
/// saves and restores, some 40 instructions, is not in it, nor is Xen's own part.
pub fn longest_masked() -> u64 {
    let longest = |vcpu: &Vcpu| vcpu.events.longest.load(Ordering::Relaxed);
    vcpu::online().map(longest).max().unwrap_or(0)
}
