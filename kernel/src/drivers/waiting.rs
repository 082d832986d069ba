//! The means by which a driver waits for its device.

use core::{hint, mem};

use super::function::DeviceFunction;
use crate::pci::Interrupt;
use crate::say;
use crate::time::Deadline;

/// The means by which a driver waits for its device.
///
/// It must be dropped before the [`DeviceFunction`].
pub enum Waiting {
    /// The vCPU sleeps until the device's interrupt arrives.
    Interrupt(Interrupt),
    /// The driver polls the device.
    Polling,
}

impl Waiting {
    /// Binds the interrupt of a device. If this fails, prints why, and the driver polls.
    pub fn of(device: &DeviceFunction) -> Self {
        match device.bind_interrupt() {
            Ok(Some(interrupt)) => {
                say!("# {device}: {interrupt}");
                Self::Interrupt(interrupt)
            }
            Ok(None) => Self::Polling,
            Err(why) => {
                say!("# {device}: {why}; the driver polls the device instead");
                Self::Polling
            }
        }
    }

    /// Returns true if the device may assert its interrupt.
    pub const fn has_interrupt(&self) -> bool {
        matches!(self, Self::Interrupt(_))
    }

    /// Waits until the device may have something to do. Returns false if the deadline passed before.
    ///
    /// After true the caller calls [`end`](Self::end).
    pub fn wait(&self, deadline: Deadline) -> bool {
        match self {
            Self::Interrupt(interrupt) => interrupt.wait(deadline),
            Self::Polling => {
                hint::spin_loop();
                !deadline.has_passed()
            }
        }
    }

    /// Polls from now on, because the interrupt did not arrive. Prints that.
    pub fn poll_instead(&mut self) {
        if let Self::Interrupt(interrupt) = mem::replace(self, Self::Polling) {
            say!("# {interrupt} did not arrive; the driver polls the device instead");
            interrupt.give_up();
        }
    }

    /// Ends the interrupt after the device has released the line. `had_cause` says whether the device had a
    /// cause for it.
    pub fn end(&self, had_cause: bool) {
        if let Self::Interrupt(interrupt) = self {
            interrupt.end(had_cause);
        }
    }
}
