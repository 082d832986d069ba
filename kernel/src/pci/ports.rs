//! Configuration space by the ports 0xcf8 and 0xcfc ("configuration mechanism #1").

use core::fmt;

use hypercall::ops::PhysdevOp;
use hypercall::{Xen, XenErrno};
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use x86_64::instructions::port::Port;

use crate::hypervisor::xen;
use crate::kind::Kind;
use crate::machine::Machine;

/// Which function and register the data port shows.
const ADDRESS: u16 = 0xcf8;
/// That register.
const DATA: u16 = 0xcfc;
/// Of the address port: the data port is configuration space.
const ENABLE: u32 = 1 << 31;

/// The level from which on Xen carries out a PV kernel's port I/O (`iopl_ok`).
const KERNEL_LEVEL: u32 = 1;

/// Address and data port are one thing, to be used by one at a time.
static PAIR: Mutex<()> = Mutex::new(());

/// Configuration space. Whoever has it may use the ports.
#[derive(Debug)]
pub struct Ports(());

/// Why configuration space can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConfigSpace {
    /// A domU: the machine's devices are dom0's.
    NotInitialDomain,
    /// Xen does not let this kernel use ports.
    Refused(XenErrno),
}

impl fmt::Display for NoConfigSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialDomain => f.write_str("not dom0: the machine's devices are dom0's"),
            Self::Refused(errno) => write!(f, "Xen grants no port I/O: {errno}"),
        }
    }
}

impl core::error::Error for NoConfigSpace {}

impl Ports {
    /// Asks Xen for the ports.
    ///
    /// # Errors
    /// Why not.
    pub fn open(machine: &Machine) -> Result<Self, NoConfigSpace> {
        if !machine.initial_domain {
            return Err(NoConfigSpace::NotInitialDomain);
        }
        if machine.kind == Kind::Pv {
            let granted = xen().physdev_op(PhysdevOp::SetIopl(KERNEL_LEVEL));
            granted.map_err(NoConfigSpace::Refused)?;
        }
        Ok(Self(()))
    }
}

/// What the address port takes. The mechanism reaches one segment and 256 bytes of a function.
fn selector(address: PciAddress, offset: u16) -> u32 {
    debug_assert!(address.segment() == 0 && offset < 0x100);
    let [bus, device, function] =
        [address.bus(), address.device(), address.function()].map(u32::from);
    ENABLE | bus << 16 | device << 11 | function << 8 | u32::from(offset & 0xfc)
}

impl ConfigRegionAccess for Ports {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let _pair = PAIR.lock();
        // SAFETY: `open` made sure that neither access faults; reading a standard header has no
        // side effect, and the lock keeps the pair of accesses together.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).read()
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        let _pair = PAIR.lock();
        // SAFETY: as for the read; what the value does to the function is the caller's.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).write(value);
        }
    }
}
