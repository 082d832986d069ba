//! One script of raw hypercalls, made on a real Xen and on a model of it, that must hear the same
//! answers from both.
//!
//! A script is a text: [`PV`] for PV guests, [`TRANSLATED`] for those that Xen translates for. It
//! reads as the documentation of what Xen answers. A line that starts with a word is a call, the
//! line behind it what comes of it:
//!
//! ```text
//! # Eight single frames for an extent.
//! exchange 8x0 r0-r7 for 1x3 r0
//! = 0 done=8 wrote out 0 moved r0-r7
//! ```
//!
//! | word | means |
//! |---|---|
//! | `r0` … `r15` | sixteen frames of the guest. Where Xen takes machine frames: what is beneath them |
//! | `8x0` | eight extents of order 0; `L` is the highest order that Xen permits this domain |
//! | `beyond`, `free` | a machine frame behind the end of memory; one that is nobody's |
//! | `done=8` | the count that Xen leaves behind |
//! | `wrote out 0` | the words of a list that Xen wrote to; no other has changed |
//! | `moved r0` | another frame of the guest's is beneath it than before, and the M2P says so |
//! | `gone r0` | what was beneath it is no longer the guest's |
//! | `m2p(r0)=r5` | what the M2P says where it says something else |
//! | `unmapped`, `read-only`, `elsewhere` | linear mappings of the run that are not as usual |
//!
//! A frame that no answer names is the guest's as before, with its M2P entry. Where dom0 and domU
//! rightly differ, there is an answer for each: `dom0 = 0 …`, `domu = EINVAL …`.
//!
//! What a guest stands on is a [`Ground`]: the model's for a host test, the kernel's for a self-test.
#![no_std]

mod exchange;
mod line;
mod mapping;
mod reservation;
mod scene;
mod text;
mod words;

use hypercall::ops::Pte;
use hypercall::{DomId, Pfn, VirtAddr, Xen};

pub use line::Line;
use scene::Scene;
pub use text::{PV, Script, TRANSLATED};

/// Frames that a script plays with.
pub const FRAMES: u64 = 16;

/// A page of virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Where a frame is mapped linearly.
    Linear(Pfn),
    /// Where the script makes a second mapping.
    Alias,
    /// Where frames are mapped to see whether Xen still lets them be.
    Probe,
    /// Where there is not even a first-level table.
    Nowhere,
}

/// What a script stands on: a Xen, and a guest with frames to spare.
///
/// # Safety
/// Duties of the implementor:
/// * the [`FRAMES`] frames from [`run`](Self::run) on are nobody else's (M1), hold nothing of
///   Rust's, and are mapped linearly and nowhere else (S2);
/// * nothing is mapped at [`Page::Alias`] and [`Page::Probe`], and nobody else maps anything there;
/// * [`list`](Self::list) points to as much memory as a frame has, which Xen reaches exactly while
///   the linear mapping maps that frame.
pub unsafe trait Ground {
    /// The seam to Xen.
    type Xen: Xen;

    /// The seam to Xen.
    fn xen(&self) -> &Self::Xen;

    /// Whether the guest may do what dom0 may.
    fn is_dom0(&self) -> bool;

    /// Whether Xen translates for the guest.
    fn is_translated(&self) -> bool;

    /// The highest order that Xen permits the domain.
    fn limit(&self) -> u32;

    /// The first of the frames.
    fn run(&self) -> Pfn;

    /// What Xen takes for a frame that goes: the machine frame beneath it, or in a translated guest
    /// its own number.
    fn beneath(&self, pfn: Pfn) -> u64;

    /// Notes what is beneath a frame from now on. In a PV guest alone.
    fn record(&self, pfn: Pfn, mfn: u64);

    /// Machine address of the first-level entry that maps a frame linearly. In a PV guest alone.
    fn entry(&self, pfn: Pfn) -> u64;

    /// That entry as it stands. In a PV guest alone.
    fn pte(&self, pfn: Pfn) -> Pte;

    /// Where a page is.
    fn address(&self, page: Page) -> VirtAddr;

    /// What the M2P has for a frame of the guest's. In a PV guest alone.
    fn m2p(&self, mfn: u64) -> Option<u64>;

    /// The first machine frame that the M2P has down as `pfn`, of this guest or another, and that
    /// `fits`.
    fn find(&self, pfn: Pfn, fits: &mut dyn FnMut(u64) -> bool) -> Option<u64>;

    /// A multiple of 1024 that 1024 guest frame numbers without memory begin with.
    fn hole(&self) -> u64;

    /// A machine frame that is no guest's: Xen's or free.
    fn nobodys(&self) -> Option<u64>;

    /// Another domain, over which this one has no rights.
    fn other(&self) -> DomId;

    /// The words of one of the frames.
    fn list(&self, pfn: Pfn) -> *mut u64;
}

/// How the answers compare with those of a script.
#[derive(Debug)]
#[must_use]
pub enum Verdict<'s> {
    /// They are the same.
    Same {
        /// How many calls were made.
        calls: usize,
    },
    /// One is not, and no call was made behind it: the run is in no state to be used again.
    Differs {
        /// The line of the call, from 1.
        line: usize,
        /// The call.
        call: &'s str,
        /// What the script expects.
        expected: &'s str,
        /// What came of it.
        heard: Line,
    },
}

/// Makes the calls of a script, up to the first whose answer is not the script's. `hear` is told
/// each call and what came of it.
pub fn run<'s>(
    ground: &impl Ground,
    script: &'s str,
    mut hear: impl FnMut(&str, &str),
) -> Verdict<'s> {
    let mut scene = Scene::new(ground);
    let (here, there) = if ground.is_dom0() { ("dom0 ", "domu ") } else { ("domu ", "dom0 ") };
    let mut lines = script
        .lines()
        .zip(1..)
        .filter(|(text, _)| !text.is_empty() && !text.starts_with('#') && !text.starts_with(there));
    let mine = |text: &'s str| text.strip_prefix(here).unwrap_or(text);
    let mut calls = 0;
    while let Some((call, line)) = lines.next() {
        let (call, expected) = (mine(call), lines.next().map_or("", |(text, _)| mine(text)));
        let heard = scene.call(call);
        hear(call, &heard);
        if &*heard != expected {
            return Verdict::Differs { line, call, expected, heard };
        }
        calls += 1;
    }
    Verdict::Same { calls }
}
