//! Configuration space, accessed by the ports 0xcf8 and 0xcfc ("configuration mechanism #1").

use core::marker::PhantomData;

use hypercall::XenErrno;
use pci_types::{ConfigRegionAccess, PciAddress};
use spin::Mutex;
use x86_64::instructions::port::Port;

use crate::guest::guest;

/// The port that selects a function and a register.
const ADDRESS: u16 = 0xcf8;
/// The port that accesses that register.
const DATA: u16 = 0xcfc;
/// The bit of the address port that makes the data port access configuration space.
const ENABLE: u32 = 1 << 31;

/// The lock of address port and data port. An access uses both, so one vCPU at a time may use them.
static PAIR: Mutex<()> = Mutex::new(());

/// The right of one vCPU to use the ports of configuration space.
///
/// Xen grants port I/O to a single PV vCPU. On another vCPU the access would fault, so the type is
/// not `Send`.
#[derive(Clone, Debug)]
pub struct Ports(PhantomData<*mut ()>);

// This compiles only while `Ports` is neither `Send` nor `Sync`. Otherwise several implementations
// apply to it, and the compiler cannot infer `_`.
const _: () = {
    trait NotSend<T> {
        const HOLDS: () = ();
    }
    impl<T> NotSend<()> for T {}
    impl<T: Send> NotSend<u8> for T {}
    impl<T: Sync> NotSend<u16> for T {}
    <Ports as NotSend<_>>::HOLDS
};

impl Ports {
    /// Asks Xen to let this vCPU use the ports. Callers check that this is dom0.
    ///
    /// # Errors
    /// Xen refused.
    pub fn open() -> Result<Self, XenErrno> {
        guest().allow_ports()?;
        Ok(Self(PhantomData))
    }
}

/// Returns the value for the address port. It can name one segment, and 256 bytes of a function.
fn selector(address: PciAddress, offset: u16) -> u32 {
    debug_assert!(address.segment() == 0 && offset < 0x100);
    let [bus, device, function] =
        [address.bus(), address.device(), address.function()].map(u32::from);
    ENABLE | bus << 16 | device << 11 | function << 8 | u32::from(offset & 0xfc)
}

impl ConfigRegionAccess for Ports {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        let _pair = PAIR.lock();
        // SAFETY: `open` asked Xen to let this vCPU use the ports, and `Ports` never moves to
        // another vCPU. Reading configuration space changes no memory. The lock keeps the two
        // accesses together.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).read()
        }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        let _pair = PAIR.lock();
        // SAFETY: `open` asked Xen to let this vCPU use the ports, and `Ports` never moves to
        // another vCPU. The lock keeps the two accesses together. By the contract of
        // `ConfigRegionAccess::write` the function accepts the value.
        unsafe {
            Port::new(ADDRESS).write(selector(address, offset));
            Port::new(DATA).write(value);
        }
    }
}
