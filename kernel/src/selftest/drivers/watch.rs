//! Every address that a driver got, with a check of the memory that it names. In PV the check asks Xen's
//! M2P.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ptr::NonNull;

use spin::Mutex;
use xen_contig::addr::{DmaAddr, Mfn, PAGE_SIZE, Pfn};
use xen_contig::dma::Constraints;
use xen_contig::p2m::M2p;

use super::{Check, fail};
use crate::drivers::memory::allocator;
use crate::layout::LINEAR_BASE;
use crate::machine::Machine;
use crate::say;
use crate::selftest::dma::helpers::Limits;
use crate::traps::try_read;

const PAGE: u64 = PAGE_SIZE as u64;

/// What the driver got an address for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Memory that the driver allocated.
    Allocated,
    /// A buffer of the driver, in place.
    InPlace,
    /// A buffer of the driver, with a bounce buffer in its place.
    Bounced,
}

/// An address that the driver got.
#[derive(Clone, Debug)]
pub struct HandedAddress {
    /// What the address is for.
    pub how: AddressKind,
    /// The device's address.
    pub dma: DmaAddr,
    /// The number of bytes.
    pub bytes: u64,
    /// The number of exchanges that were needed.
    pub exchanges: u64,
    /// The driver's address, or the address of its own buffer.
    at: u64,
    /// The defect that was found, if any. It is found at once, because a bounce buffer is soon
    /// reused.
    fault: Option<String>,
}

impl fmt::Display for HandedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { how, dma, bytes, exchanges, at, .. } = self;
        let how = match how {
            AddressKind::Allocated => "allocated",
            AddressKind::InPlace => "in place",
            AddressKind::Bounced => "bounced",
        };
        write!(f, "{bytes} bytes at {at:#x}, for the device {dma}, {how}, exchanges: {exchanges}")
    }
}

static HANDED: Mutex<Vec<HandedAddress>> = Mutex::new(Vec::new());

/// Returns the addresses that were handed out since the last call.
pub fn take() -> Vec<HandedAddress> {
    mem::take(&mut *HANDED.lock())
}

/// Records the address that a driver got for a buffer. `exchanged` is the allocator's count before the request.
pub fn note(
    how: AddressKind,
    dma: DmaAddr,
    buffer: NonNull<[u8]>,
    reach: &Constraints,
    exchanged: u64,
) {
    let (at, bytes) = (buffer.cast::<u8>().addr().get() as u64, buffer.len() as u64);
    let exchanges = allocator().stats().exchanged - exchanged;
    let mut handed = HandedAddress { how, dma, bytes, exchanges, at, fault: None };
    handed.fault = handed.find_fault(allocator().platform(), reach).err();
    if let Some(fault) = &handed.fault {
        // The defect is printed at once, because the driver may fail before the test ends.
        say!("# a driver got {handed}: {fault}");
    }
    HANDED.lock().push(handed);
}

impl HandedAddress {
    /// Fails if the address was defective when it was handed out.
    pub fn check(&self) -> Check {
        match &self.fault {
            None => Ok(()),
            Some(fault) => fail!("{self}: {fault}"),
        }
    }

    /// Checks an address. It must be within the device's reach and name contiguous memory of this
    /// guest. Without a bounce buffer it must name the driver's own memory.
    fn find_fault(&self, machine: &Machine, reach: &Constraints) -> Result<(), String> {
        if !Limits::of(reach).take(self.dma.get(), self.bytes) {
            return Err(format!("it is not within the device's mask {:#x}", reach.mask()));
        }
        let first = self.dma.get() / PAGE;
        let last = (self.dma.get() + self.bytes - 1) / PAGE;
        for frame in first..=last {
            let Some(pfn) = owner(machine, frame) else {
                return Err(format!("frame {frame:#x} does not belong to the guest"));
            };
            let own = self.at.checked_sub(LINEAR_BASE).map(|offset| offset / PAGE + frame - first);
            if self.how != AddressKind::Bounced && own != Some(pfn.number()) {
                return Err(format!(
                    "frame {frame:#x} backs pfn {pfn}, but the driver's pfn is {own:x?}"
                ));
            }
        }
        if self.how != AddressKind::Bounced && self.at % PAGE != self.dma.get() % PAGE {
            return Err(
                "the offset in the page differs from that of the driver's memory".to_owned()
            );
        }
        Ok(())
    }
}

/// Returns the guest frame that a device reaches by a frame number, if it is one of this guest.
fn owner(machine: &Machine, frame: u64) -> Option<Pfn> {
    let Some(m2p) = machine.m2p else {
        let pfn = Pfn::new(frame);
        return machine.p2m.gfn(pfn).map(|_| pfn);
    };
    let mfn = Mfn::new(frame);
    // Xen does not map the pieces of its M2P that describe no memory.
    let record = m2p.entry(mfn).and_then(|entry| try_read(entry).ok())?;
    M2p::decode(record).filter(|pfn| machine.p2m.mfn(*pfn) == Some(mfn))
}
