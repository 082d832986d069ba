//! The start info of a PV domU as it stands in its frame, which a toolstack that saves the domain
//! reads and one that restores it rewrites (`process_start_info` of libxenguest).

use hypercall::ops::Port;
use xen_contig::addr::{Gfn, Mfn, PAGE_SIZE};
use xen_sys::start_info;

use crate::layout;
use crate::machine::Machine;

/// The page.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo {
    page: *mut start_info,
    mfn: Mfn,
}

/// The two numbers of machine frames that are guest frames while the domain is saved.
#[derive(Clone, Copy, Debug)]
pub struct Rings {
    store: u64,
    console: u64,
}

impl StartInfo {
    /// The page of a PV guest; `None` in a translated guest.
    pub fn of(machine: &Machine) -> Option<Self> {
        let pfn = machine.start_info?;
        Some(Self { page: layout::linear(pfn).as_mut_ptr(), mfn: machine.p2m.mfn(pfn)? })
    }

    /// Its machine frame.
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The xenstore ring and its event channel.
    pub fn store(&self) -> Option<(Mfn, Port)> {
        let (mfn, port) = self.fields().0;
        (mfn != 0 && port != 0).then(|| (Mfn::new(mfn), Port(port)))
    }

    /// The event channel of the console.
    pub fn console(&self) -> Option<Port> {
        let (mfn, port) = self.fields().1;
        (mfn != 0 && port != 0).then_some(Port(port))
    }

    /// The frame of the page that Xen shares with the domain.
    pub fn shared_info(&self) -> Gfn {
        // SAFETY: the frame is mapped, and none but a toolstack that has stopped the domain writes
        // there.
        let address = unsafe { (&raw const (*self.page).shared_info).read_volatile() };
        Gfn::new(address / PAGE_SIZE as u64)
    }

    /// Puts guest frames where machine frames stand, for the toolstack. `guest_frame` translates; an
    /// absent ring is 0 either way. Returns what stood there.
    pub fn to_guest_frames(self, guest_frame: impl Fn(Mfn) -> Option<u64>) -> Rings {
        let ((store, _), (console, _)) = self.fields();
        let of = |mfn: u64| guest_frame(Mfn::new(mfn)).filter(|_| mfn != 0).unwrap_or(0);
        self.set(Rings { store: of(store), console: of(console) });
        Rings { store, console }
    }

    /// Puts back what stood there.
    pub fn set(self, rings: Rings) {
        // SAFETY: as for `shared_info`; a domU's console is the first member of the union.
        unsafe {
            (&raw mut (*self.page).store_mfn).write_volatile(rings.store);
            (&raw mut (*self.page).console.domU.mfn).write_volatile(rings.console);
        }
    }

    fn fields(&self) -> ((u64, u32), (u64, u32)) {
        // SAFETY: as for `shared_info`; a domU's console is the first member of the union.
        unsafe {
            (
                (
                    (&raw const (*self.page).store_mfn).read_volatile(),
                    (&raw const (*self.page).store_evtchn).read_volatile(),
                ),
                (
                    (&raw const (*self.page).console.domU.mfn).read_volatile(),
                    (&raw const (*self.page).console.domU.evtchn).read_volatile(),
                ),
            )
        }
    }
}
