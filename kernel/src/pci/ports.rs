//! Configuration space by the ports 0xcf8 and 0xcfc ("configuration mechanism #1").

use core::fmt;
use core::marker::PhantomData;

use hypercall::XenErrno;
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use x86_64::instructions::port::Port;

use crate::guest::guest;
use crate::machine::Machine;

/// The port that selects a function and a register.
const ADDRESS: u16 = 0xcf8;
/// The port that accesses that register.
const DATA: u16 = 0xcfc;
/// The bit of the address port that makes the data port access configuration space.
const ENABLE: u32 = 1 << 31;

/// Address and data port form a pair, which one vCPU at a time may use.
static PAIR: Mutex<()> = Mutex::new(());

/// The right to use the ports of configuration space, on one vCPU.
///
/// Xen grants port I/O to a single PV vCPU. So the type is not `Send`: it can't be used on another
/// vCPU, where the access would fault.
#[derive(Debug)]
pub struct Ports(PhantomData<*mut ()>);

// Compiles only while `Ports` is neither `Send` nor `Sync`: otherwise both implementations apply to
// it, and the compiler can't infer `_`.
const _: () = {
    trait NotSend<T> {
        const HOLDS: () = ();
    }
    impl<T> NotSend<()> for T {}
    impl<T: Send> NotSend<u8> for T {}
    impl<T: Sync> NotSend<u16> for T {}
    <Ports as NotSend<_>>::HOLDS
};

/// Why configuration space is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConfigSpace {
    /// This is a domU. The machine's devices belong to dom0.
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
    /// Asks Xen to let this vCPU use the ports.
    ///
    /// # Errors
    /// The domain has no devices, or Xen refused.
    pub fn open(machine: &Machine) -> Result<Self, NoConfigSpace> {
        if !machine.initial_domain {
            return Err(NoConfigSpace::NotInitialDomain);
        }
        guest().allow_ports().map_err(NoConfigSpace::Refused)?;
        Ok(Self(PhantomData))
    }
}

/// The value for the address port. It can name one segment, and 256 bytes of a function.
fn selector(address: PciAddress, offset: u16) -> u32 {
    debug_assert!(address.segment() == 0 && offset < 0x100);
    let [bus, device, function] =
        [address.bus(), address.device(), address.function()].map(u32::from);
    ENABLE | bus << 16 | device << 11 | function << 8 | u32::from(offset & 0xfc)
}

impl ConfigRegionAccess for Ports {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let _pair = PAIR.lock();
        // SAFETY: Xen lets this vCPU use the ports: `open` asked on it, and `Ports` never leaves it.
        // Reading configuration space changes no memory. The lock keeps the two accesses together.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).read()
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        let _pair = PAIR.lock();
        // SAFETY: Xen lets this vCPU use the ports: `open` asked on it, and `Ports` never leaves it.
        // The lock keeps the two accesses together. By the contract of `ConfigRegionAccess::write`
        // the function accepts the value.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).write(value);
        }
    }
}
