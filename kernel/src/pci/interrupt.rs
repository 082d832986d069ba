//! The interrupt of a function's pin (INTx), which Xen delivers to a PV domU as an event.
//!
//! The toolstack gives the interrupt to the domain together with the device, and the backend shows its
//! number in configuration space (`interrupt_read` of Linux's xen-pciback). The port stays masked: no
//! handler runs. A driver sleeps until an event is pending at the port, on any vCPU.
//!
//! The interrupt is triggered by level, and other devices may share the line. So a driver first makes its
//! device release the line, and then calls [`Interrupt::end`], for events of other devices too.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hypercall::abi::physdev::NEEDS_EOI;
use hypercall::ops::{EventChannelOp, PhysdevOp, Port, SchedOp};
use hypercall::{Xen, XenErrno};
use pci_types::{CommandRegister, EndpointHeader, PciAddress, PciHeader};

use super::config::ConfigSpace;
use crate::console::say;
use crate::hypervisor::untraced;
use crate::shared_page;
use crate::time::Deadline;
use crate::vcpu::xen;

static QUERIED: AtomicU64 = AtomicU64::new(0);
static BOUND: AtomicU64 = AtomicU64::new(0);
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static NEEDED_END: AtomicU64 = AtomicU64::new(0);
static SPURIOUS: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// The interrupts of all functions in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptCounts {
    /// The number of times that Xen was asked for the status of an interrupt, which comes before binding it.
    pub queried: u64,
    /// The number of times that an interrupt was bound.
    pub bound: u64,
    /// Events that arrived.
    pub arrived: u64,
    /// Events among them of interrupts that Xen delivers again only after their end.
    pub needed_end: u64,
    /// Events among them for which the device had no cause.
    pub spurious: u64,
    /// The number of interrupts that were given up, because they did not arrive.
    pub lost: u64,
}

impl InterruptCounts {
    /// Returns the counts since boot.
    pub fn now() -> Self {
        Self {
            queried: QUERIED.load(Relaxed),
            bound: BOUND.load(Relaxed),
            arrived: ARRIVED.load(Relaxed),
            needed_end: NEEDED_END.load(Relaxed),
            spurious: SPURIOUS.load(Relaxed),
            lost: LOST.load(Relaxed),
        }
    }

    /// Returns true if a driver polled for a part of the time.
    pub const fn polled(&self) -> bool {
        self.bound == 0 || self.lost > 0
    }

    /// Returns the counts since an earlier time.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            queried: self.queried - earlier.queried,
            bound: self.bound - earlier.bound,
            arrived: self.arrived - earlier.arrived,
            needed_end: self.needed_end - earlier.needed_end,
            spurious: self.spurious - earlier.spurious,
            lost: self.lost - earlier.lost,
        }
    }
}

/// The reason why an interrupt is not bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptError {
    /// The function uses no pin.
    NoPin,
    /// The backend names no interrupt.
    NoLine,
    /// Xen refused a step.
    Refused {
        /// The name of the step.
        step: &'static str,
        /// The number of the interrupt.
        pirq: u32,
        /// Xen's error.
        errno: XenErrno,
    },
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPin => f.write_str("the function has no interrupt pin"),
            Self::NoLine => f.write_str("the PCI backend in dom0 names no interrupt line"),
            Self::Refused { step, pirq, errno } => write!(f, "{step} of interrupt {pirq}: {errno}"),
        }
    }
}

impl core::error::Error for InterruptError {}

/// The interrupt of a function, bound to an event channel. Dropping this disables the interrupt.
pub struct Interrupt {
    space: ConfigSpace,
    address: PciAddress,
    pirq: u32,
    port: Port,
    needs_end: bool,
}

impl Interrupt {
    /// Binds the interrupt of a function and lets the function assert it.
    ///
    /// Returns `None` in dom0: a PV dom0 would have to find out by ACPI which interrupt a pin has, and a PVH
    /// dom0 gets interrupts by a virtual I/O APIC, not by event channels.
    ///
    /// # Errors
    /// The function has no interrupt, or Xen refused a step.
    pub fn bind(space: &ConfigSpace, address: PciAddress) -> Result<Option<Self>, InterruptError> {
        if matches!(space, ConfigSpace::Ports(_)) {
            return Ok(None);
        }
        let endpoint = EndpointHeader::from_header(PciHeader::new(address), space);
        let (pin, line) = endpoint.ok_or(InterruptError::NoPin)?.interrupt(space);
        if pin == 0 {
            return Err(InterruptError::NoPin);
        }
        // Firmware writes 255 if the line is unknown, and Linux uses 0.
        if matches!(line, 0 | 0xff) {
            return Err(InterruptError::NoLine);
        }
        let pirq = line.into();
        let refused = |step| move |errno| InterruptError::Refused { step, pirq, errno };
        QUERIED.fetch_add(1, Relaxed);
        let status = xen().physdev_op(PhysdevOp::IrqStatusQuery { pirq });
        let status = status.map_err(refused("PHYSDEVOP_irq_status_query"))?;
        let bound = xen().event_channel_op(EventChannelOp::BindPirq { pirq, shared: true });
        let port = Port(bound.map_err(refused("EVTCHNOP_bind_pirq"))? as u32);
        let needs_end = status & u64::from(NEEDS_EOI) != 0;
        let interrupt = Self { space: space.clone(), address, pirq, port, needs_end };
        interrupt.command(|command| command - CommandRegister::INTERRUPT_DISABLE);
        BOUND.fetch_add(1, Relaxed);
        Ok(Some(interrupt))
    }

    /// Sleeps until the interrupt arrives. Returns false if the deadline passed before.
    pub fn wait(&self, deadline: Deadline) -> bool {
        while !shared_page::take_port(self.port) {
            if deadline.has_passed() {
                return false;
            }
            // An event that is pending by now ends the sleep at once. If Xen refuses to sleep, the loop
            // runs again.
            let timeout = Some(deadline.nanoseconds());
            let _slept = untraced().sched_op(SchedOp::Poll { port: Some(self.port), timeout });
        }
        ARRIVED.fetch_add(1, Relaxed);
        NEEDED_END.fetch_add(self.needs_end.into(), Relaxed);
        true
    }

    /// Ends an interrupt that arrived, so that Xen delivers the next one.
    ///
    /// `had_cause` says whether the function had a cause. Otherwise another device on the line had one, or the
    /// driver found the cause before the event.
    pub fn end(&self, had_cause: bool) {
        SPURIOUS.fetch_add((!had_cause).into(), Relaxed);
        if !self.needs_end {
            return;
        }
        if let Err(errno) = xen().physdev_op(PhysdevOp::Eoi { pirq: self.pirq }) {
            say!("# PHYSDEVOP_eoi of interrupt {}: {errno}", self.pirq);
        }
    }

    /// Gives up an interrupt that did not arrive although the device was done.
    pub fn give_up(self) {
        LOST.fetch_add(1, Relaxed);
    }

    fn command(&self, change: impl FnOnce(CommandRegister) -> CommandRegister) {
        PciHeader::new(self.address).update_command(&self.space, change);
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.command(|command| command | CommandRegister::INTERRUPT_DISABLE);
        if let Err(errno) = xen().event_channel_op(EventChannelOp::Close(self.port)) {
            say!("# EVTCHNOP_close of interrupt {}: {errno}", self.pirq);
        }
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupt {} at event channel {}", self.pirq, self.port.0)
    }
}
