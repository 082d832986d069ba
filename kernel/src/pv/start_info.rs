//! The page with the start info of a PV domU.
//!
//! A toolstack that saves the domain reads the page. A toolstack that restores the domain rewrites
//! it (`process_start_info` of libxenguest).

use hypercall::ops::Port;
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE, Pfn};
use xen_contig::p2m::{M2p, P2m};
use xen_sys::start_info;

use crate::layout;

/// The page with the start info.
#[derive(Debug)]
pub struct StartInfoPage {
    pfn: Pfn,
    p2m: P2m<'static>,
    m2p: M2p,
}

/// The two frame numbers that are guest frames while the domain is saved, and machine frames
/// otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    store: u64,
    console: u64,
}

impl StartInfoPage {
    /// Returns the start info in a frame.
    ///
    /// # Safety
    /// Frame `pfn` contains the domain's start info. The linear mapping maps the frame for good,
    /// and nothing else uses it.
    pub unsafe fn new(pfn: Pfn, p2m: P2m<'static>, m2p: M2p) -> Self {
        Self { pfn, p2m, m2p }
    }

    fn page(&self) -> *mut start_info {
        layout::linear(self.pfn).as_mut_ptr()
    }

    /// Returns the machine frame of the page.
    ///
    /// # Panics
    /// If the P2M has no machine frame for the page. The frame is never exchanged.
    pub fn mfn(&self) -> Mfn {
        self.p2m.mfn(self.pfn).expect("the start info is never exchanged")
    }

    /// Returns the frame of the xenstore ring and its event channel.
    pub fn store_ring(&self) -> Option<(Pfn, Port)> {
        let (mfn, port) = self.fields().0;
        if mfn == 0 || port == 0 {
            return None;
        }
        let mfn = Mfn::new(mfn);
        // SAFETY: the ring lies in a frame of this domain, which is RAM.
        let pfn = unsafe { self.m2p.pfn(mfn) }?;
        (self.p2m.mfn(pfn) == Some(mfn)).then_some((pfn, Port(port)))
    }

    /// Returns the event channel of the console.
    pub fn console(&self) -> Option<Port> {
        let (mfn, port) = self.fields().1;
        (mfn != 0 && port != 0).then_some(Port(port))
    }

    /// Returns the frame of the page that Xen shares with the domain.
    pub fn shared_info(&self) -> Gfn {
        // SAFETY: by the contract of `new` the page is mapped and nothing else uses it. Only a
        // toolstack writes to it, while the domain is stopped.
        let address = unsafe { (&raw const (*self.page()).shared_info).read_volatile() };
        Gfn::new(address / PAGE_SIZE as u64)
    }

    /// Replaces the machine frames of the rings by guest frames and returns the old numbers.
    ///
    /// The number of an absent ring is 0 in both numberings.
    pub fn name_rings_by_guest_frame(&self) -> Rings {
        let ((store, _), (console, _)) = self.fields();
        let guest_frame = |mfn: u64| {
            if mfn == 0 {
                return 0;
            }
            // SAFETY: the rings lie in frames of this domain, which are RAM.
            unsafe { self.m2p.pfn(Mfn::new(mfn)) }.map_or(0, Pfn::number)
        };
        self.set_rings(Rings { store: guest_frame(store), console: guest_frame(console) });
        Rings { store, console }
    }

    /// Writes the frame numbers of the rings.
    pub fn set_rings(&self, rings: Rings) {
        let page = self.page();
        // SAFETY: by the contract of `new` the page is mapped and nothing else uses it. In a domU the
        // union contains `domU`.
        unsafe {
            (&raw mut (*page).store_mfn).write_volatile(rings.store);
            (&raw mut (*page).console.domU.mfn).write_volatile(rings.console);
        }
    }

    /// Reads frame and port of the xenstore ring, then of the console ring.
    fn fields(&self) -> ((u64, u32), (u64, u32)) {
        let page = self.page();
        // SAFETY: by the contract of `new` the page is mapped and nothing else uses it. In a domU the
        // union contains `domU`.
        unsafe {
            (
                (
                    (&raw const (*page).store_mfn).read_volatile(),
                    (&raw const (*page).store_evtchn).read_volatile(),
                ),
                (
                    (&raw const (*page).console.domU.mfn).read_volatile(),
                    (&raw const (*page).console.domU.evtchn).read_volatile(),
                ),
            )
        }
    }
}
