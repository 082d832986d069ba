//! How much memory Xen has to give, and in what pieces.

use hypercall::{AddressBits, Order};

use super::FakeGuest;
use crate::frame::Owner;
use crate::machine::Machine;

impl FakeGuest {
    /// How many frames are free in Xen's heap.
    pub fn free_frames(&self) -> u64 {
        self.xen.with(|machine| machine.heap.free_frames())
    }

    /// The highest order of which an extent is free.
    pub fn highest_free_order(&self) -> Option<u32> {
        self.xen.with(|machine| machine.heap.highest_order())
    }

    /// Fragments the heap, so that no extent of `order` is free: one frame of each goes.
    pub fn fragment(&self, order: Order) {
        self.xen.with(|machine| {
            for mfn in (0..machine.frames.len() as u64).step_by(order.frames() as usize) {
                machine.hog(mfn);
            }
        });
    }

    /// Takes everything below `2^bits` that is free.
    pub fn exhaust_below(&self, bits: AddressBits) {
        self.xen.with(|machine| {
            for mfn in 0..bits.frame_limit().min(machine.frames.len() as u64) {
                machine.hog(mfn);
            }
        });
    }

    /// Takes free frames until `left` are left.
    pub fn exhaust_but(&self, left: u64) {
        self.xen.with(|machine| {
            for mfn in 0..machine.frames.len() as u64 {
                if machine.heap.free_frames() > left {
                    machine.hog(mfn);
                }
            }
        });
    }

    /// Gives back all that the above took.
    pub fn relieve(&self) {
        self.xen.with(|machine| {
            for mfn in std::mem::take(&mut machine.hogs) {
                machine.free(mfn, 0);
            }
        });
    }

    /// How many frames Xen got back with something else in them than zeros (C57).
    pub fn given_up_dirty(&self) -> u64 {
        self.xen.with(|machine| machine.dirty)
    }
}

impl Machine {
    fn hog(&mut self, mfn: u64) {
        if self.heap.take_frame(mfn) {
            self.frames[mfn as usize].renew(Owner::Xen);
            self.hogs.push(mfn);
        }
    }
}
