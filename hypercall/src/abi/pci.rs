//! `public/io/pciif.h`: the page by which a PV guest uses the PCI devices that dom0 passes to it.

use super::assert_layout;

/// `XEN_PCI_MAGIC`: the version of the protocol, which the guest writes to xenstore.
pub const MAGIC: &str = "7";

/// `XEN_PCIF_active`: the bit of `flags` with which the guest hands a request over.
pub const ACTIVE: u32 = 1;

/// `XEN_PCI_OP_conf_read`.
pub const CONF_READ: u32 = 0;
/// `XEN_PCI_OP_conf_write`.
pub const CONF_WRITE: u32 = 1;

/// `XEN_PCI_ERR_dev_not_found`.
pub const NOT_FOUND: i32 = -1;

/// `struct xen_pci_op`: a request, and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PciOp {
    /// What to do, `XEN_PCI_OP_*`.
    pub cmd: u32,
    /// The answer: 0, or `XEN_PCI_ERR_*`.
    pub err: i32,
    /// The PCI segment.
    pub domain: u32,
    /// The bus.
    pub bus: u32,
    /// The device times 8, plus the function.
    pub devfn: u32,
    /// The register's offset in configuration space.
    pub offset: i32,
    /// The register's size in bytes: 1, 2 or 4.
    pub size: i32,
    /// The value that was read or is written.
    pub value: u32,
    /// A number of MSI or MSI-X.
    pub info: u32,
    /// Pairs of a vector and an entry, for MSI-X.
    pub msix_entries: [[u16; 2]; 128],
}
assert_layout!(PciOp, size 548, cmd @ 0, err @ 4, domain @ 8, bus @ 12, devfn @ 16, offset @ 20,
    size @ 24, value @ 28, info @ 32, msix_entries @ 36);

/// `struct xen_pci_sharedinfo`, without the part for errors that the backend reports.
///
/// The backend reads and writes this memory at any time. Access it only through raw pointers, by
/// volatile or atomic operations; never make a reference to it.
#[repr(C)]
pub struct PciSharedInfo {
    /// `XEN_PCIF_*` and `XEN_PCIB_*`.
    pub flags: u32,
    /// The request.
    pub op: PciOp,
}
assert_layout!(PciSharedInfo, size 552, flags @ 0, op @ 4);
