//! How much memory Xen's heap has, and in which pieces.

use hypercall::{AddressBits, Order};

use super::FakeGuest;
use crate::frame::Owner;
use crate::machine::MachineState;

impl FakeGuest {
    /// How many frames are free in Xen's heap.
    pub fn free_frames(&self) -> u64 {
        self.xen.with(|machine| machine.heap.free_frames())
    }

    /// The highest order of which an extent is free.
    pub fn highest_free_order(&self) -> Option<u32> {
        self.xen.with(|machine| machine.heap.highest_order())
    }

    /// Fragments the heap until no extent of `order` is free: takes one frame of each.
    pub fn fragment(&self, order: Order) {
        self.fragment_from(0, order);
    }

    /// Does the same from a machine frame on, a multiple of the size of an extent.
    pub fn fragment_from(&self, first: u64, order: Order) {
        self.xen.with(|machine| {
            for mfn in (first..machine.frames.len() as u64).step_by(order.frames() as usize) {
                machine.hog(mfn);
            }
        });
    }

    /// Takes all free memory below `2^bits`.
    pub fn exhaust_below(&self, bits: AddressBits) {
        self.xen.with(|machine| {
            for mfn in 0..bits.frame_limit().min(machine.frames.len() as u64) {
                machine.hog(mfn);
            }
        });
    }

    /// Takes free frames until `left` remain.
    pub fn exhaust_but(&self, left: u64) {
        self.xen.with(|machine| {
            for mfn in 0..machine.frames.len() as u64 {
                if machine.heap.free_frames() > left {
                    machine.hog(mfn);
                }
            }
        });
    }

    /// Releases the memory that the methods above took.
    pub fn relieve(&self) {
        self.xen.with(|machine| {
            for mfn in std::mem::take(&mut machine.hogs) {
                machine.free(mfn, 0);
            }
        });
    }

    /// How many frames returned to Xen were not zeroed ([C57](xen_contig::conformance#C57)).
    pub fn given_up_dirty(&self) -> u64 {
        self.xen.with(|machine| machine.dirty)
    }
}

impl MachineState {
    fn hog(&mut self, mfn: u64) {
        if self.heap.take_frame(mfn) {
            self.frames[mfn as usize].renew(Owner::Xen);
            self.hogs.push(mfn);
        }
    }
}
