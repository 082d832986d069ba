//! Accesses of a device to the machine's memory.

use xen_contig::addr::DmaAddr;

use super::FakeGuest;
use crate::content::Content;
use crate::frame::{Owner, PageType};
use crate::machine::MachineState;

/// The longest access that a device makes at once.
const WIDEST: usize = 8;

impl FakeGuest {
    /// Reads memory as a device does, by the address that the driver wrote into its register.
    ///
    /// The device reads in pieces of 8 bytes, or of 4, 2 and 1 where the address or the length is
    /// not a multiple of 8. A naturally aligned field is therefore read at once, even while the
    /// driver writes it through a pointer.
    ///
    /// # Panics
    /// If the address is not memory of the guest. On a real machine the device would read memory of
    /// Xen or of another domain, or the IOMMU would stop it.
    pub fn dma_read(&self, at: DmaAddr, into: &mut [u8]) {
        self.dma(at, into.len(), false, |content, offset, range| {
            let bytes = content.load(offset, range.len()).to_le_bytes();
            into[range.clone()].copy_from_slice(&bytes[..range.len()]);
        });
    }

    /// Writes memory as a device does, in the same pieces as [`dma_read`](Self::dma_read).
    ///
    /// # Panics
    /// If the address is not memory of the guest, or is a page table.
    pub fn dma_write(&self, at: DmaAddr, from: &[u8]) {
        self.dma(at, from.len(), true, |content, offset, range| {
            let mut bytes = [0; WIDEST];
            bytes[..range.len()].copy_from_slice(&from[range.clone()]);
            content.store(offset, range.len(), u64::from_le_bytes(bytes));
        });
    }

    /// Calls `access` for each piece, with the frame, the place in the frame and the place in the
    /// caller's bytes.
    fn dma(
        &self,
        at: DmaAddr,
        len: usize,
        write: bool,
        mut access: impl FnMut(&mut Content, usize, std::ops::Range<usize>),
    ) {
        self.xen.turn();
        self.xen.with(|machine| {
            let mut done = 0;
            while done < len {
                let address = at.get().wrapping_add(done as u64);
                // The largest power of two that divides the address and fits the rest.
                let aligned = 1 << address.trailing_zeros().min(WIDEST.ilog2());
                let piece = aligned.min(1 << (len - done).ilog2());
                let Some(mfn) = machine.dma_frame(address, write) else { return };
                let content = &mut machine.frames[mfn as usize].content;
                access(content, (address & 0xfff) as usize, done..done + piece);
                done += piece;
            }
        });
    }
}

impl MachineState {
    /// The machine frame that a device of the guest reaches. A translated guest gives its devices
    /// guest addresses, which the IOMMU translates.
    fn dma_frame(&self, address: u64, write: bool) -> Option<u64> {
        let gfn = address >> 12;
        let mfn = match &self.domain.physmap {
            None => Some(gfn),
            Some(physmap) => physmap.get(gfn as usize).copied().flatten(),
        };
        let frame = mfn.and_then(|mfn| self.frame(mfn));
        let own = Owner::Domain(self.domain.id);
        let verb = if write { "writes to" } else { "reads" };
        match frame {
            Some(frame) if frame.owner != own => self.violation(&format!(
                "a device {verb} {address:#x}, which belongs to {:?} and not to the guest",
                frame.owner
            )),
            Some(frame) if write && frame.kind == PageType::L1 && frame.kind_count > 0 => {
                self.violation(&format!("a device {verb} {address:#x}, which is a page table"))
            }
            Some(_) => return mfn,
            None => self.violation(&format!("a device {verb} {address:#x}, which is not memory")),
        }
        None
    }
}
