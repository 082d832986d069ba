//! A script of raw hypercalls that a real Xen and a model of Xen must answer alike.
//!
//! A script is a text: [`PV`] for PV guests and [`TRANSLATED`] for translated guests. It documents
//! the answers of Xen. A line that starts with a word is a call. The next line is the answer,
//! followed by the changes that the call made:
//!
//! ```text
//! # Exchange eight single frames for one extent.
//! exchange 8x0 r0-r7 for 1x3 r0
//! = 0 done=8 wrote out 0 moved r0-r7
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | `r0` … `r15` | the sixteen frames of the script, or their backing where Xen takes machine frames |
//! | `8x0` | eight extents of order 0. `L` is the highest order that Xen permits this domain |
//! | `beyond`, `free` | a machine frame past the end of memory; one that no domain owns |
//! | `done=8` | the count that Xen wrote |
//! | `wrote out 0` | the entries of a list that Xen changed. It changed no others |
//! | `moved r0` | another machine frame of the guest backs `r0` now, and its M2P entry is right |
//! | `gone r0` | the guest no longer owns the backing of `r0` |
//! | `m2p(r0)=r5` | the M2P entry of the backing of `r0`, if it is not `r0` |
//! | `unmapped`, `read-only`, `elsewhere` | frames whose linear mapping is not as at the start |
//!
//! A frame that an answer does not name has its former backing, which the guest owns and whose M2P
//! entry is right. Some answers differ between dom0 and a domU on purpose. The script then has an
//! answer for each: `dom0 = 0 …`, `domu = EINVAL …`.
//!
//! A [`ScriptGuest`] makes the calls: a guest of the model in a host test, the kernel in a
//! self-test.
#![no_std]

mod exchange;
mod line;
mod mapping;
mod player;
mod reservation;
mod text;
mod words;

use hypercall::ops::Pte;
use hypercall::{DomId, Pfn, VirtAddr, Xen};

pub use line::AnswerLine;
use player::Player;
pub use text::{PV, Script, TRANSLATED};

/// Number of frames that a script uses.
pub const FRAMES: u64 = 16;

/// A page of virtual addresses that a script maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptPage {
    /// The linear mapping of a frame.
    Linear(Pfn),
    /// The page where the script makes a second mapping.
    Alias,
    /// The page where the script maps a frame to find out whether the domain owns it.
    Probe,
    /// A page without a first-level page table.
    Nowhere,
}

/// The guest that makes the calls of a script, and the Xen below it.
///
/// # Safety
///
/// An implementor must guarantee:
///
/// * The script alone uses the [`FRAMES`] frames from [`run`](Self::run) on. They contain no Rust
///   value. The linear mapping maps them, and no other mapping does.
/// * [`ScriptPage::Alias`] and [`ScriptPage::Probe`] are not mapped, and only the script maps them.
/// * [`list`](Self::list) returns a pointer to 4096 bytes. Xen can access them exactly while the
///   linear mapping maps that frame.
pub unsafe trait ScriptGuest {
    /// The implementation of the hypercalls.
    type Xen: Xen;

    /// Returns the implementation of the hypercalls.
    fn xen(&self) -> &Self::Xen;

    /// Returns true if the guest has the privileges of dom0.
    fn is_dom0(&self) -> bool;

    /// Returns true if Xen translates the frame numbers of the guest.
    fn is_translated(&self) -> bool;

    /// Returns the highest order that Xen permits this domain.
    fn limit(&self) -> u32;

    /// Returns the first of the script's frames.
    fn run(&self) -> Pfn;

    /// Returns the number by which a frame goes to Xen.
    ///
    /// In a PV guest, it is the machine frame that backs `pfn`. In a translated guest, it is `pfn`.
    fn backing(&self, pfn: Pfn) -> u64;

    /// Records the new backing of a frame. A translated guest ignores it.
    fn record(&self, pfn: Pfn, mfn: u64);

    /// Returns the machine address of a frame's entry in the linear mapping.
    ///
    /// It is an entry of a first-level page table. The script calls this in a PV guest only.
    fn entry(&self, pfn: Pfn) -> u64;

    /// Returns a frame's entry in the linear mapping.
    ///
    /// The script calls this in a PV guest only.
    fn pte(&self, pfn: Pfn) -> Pte;

    /// Returns the address of a page.
    fn address(&self, page: ScriptPage) -> VirtAddr;

    /// Returns the M2P's entry of a machine frame that this domain owns or has owned.
    ///
    /// The script calls this in a PV guest only.
    fn m2p(&self, mfn: u64) -> Option<u64>;

    /// Returns the first machine frame whose M2P entry is `pfn` and that fits.
    ///
    /// A frame fits if `fits` returns true for it. The frame may belong to another domain.
    fn find(&self, pfn: Pfn, fits: &mut dyn FnMut(u64) -> bool) -> Option<u64>;

    /// Returns the first of 1024 guest frame numbers that have no memory.
    ///
    /// It is a multiple of 1024.
    fn hole(&self) -> u64;

    /// Returns a machine frame that does not belong to any domain, if one is known.
    fn unowned(&self) -> Option<u64>;

    /// Returns another domain, over which this domain has no privileges.
    fn other_domain(&self) -> DomId;

    /// Returns a pointer to the content of a frame of the run.
    fn list(&self, pfn: Pfn) -> *mut u64;
}

/// The result of a script.
#[derive(Debug)]
#[must_use]
pub enum ScriptResult<'s> {
    /// All answers are those of the script.
    Same {
        /// Number of calls that the script made.
        calls: usize,
    },
    /// An answer is not that of the script.
    ///
    /// The script ended with this call. Its frames must not be used again.
    Differs {
        /// Line number of the call in the script, from 1.
        line: usize,
        /// The call.
        call: &'s str,
        /// The answer in the script.
        expected: &'s str,
        /// The answer of Xen or of the model.
        answer: AnswerLine,
    },
}

/// Makes the calls of a script until an answer differs from that of the script.
///
/// Calls `observe` with each call and its answer.
pub fn run<'s>(
    guest: &impl ScriptGuest,
    script: &'s str,
    mut observe: impl FnMut(&str, &str),
) -> ScriptResult<'s> {
    let mut player = Player::new(guest);
    let (here, there) = if guest.is_dom0() { ("dom0 ", "domu ") } else { ("domu ", "dom0 ") };
    let mut lines = script
        .lines()
        .zip(1..)
        .filter(|(text, _)| !text.is_empty() && !text.starts_with('#') && !text.starts_with(there));
    let mine = |text: &'s str| text.strip_prefix(here).unwrap_or(text);
    let mut calls = 0;
    while let Some((call, line)) = lines.next() {
        let (call, expected) = (mine(call), lines.next().map_or("", |(text, _)| mine(text)));
        let answer = player.call(call);
        observe(call, &answer);
        if &*answer != expected {
            return ScriptResult::Differs { line, call, expected, answer };
        }
        calls += 1;
    }
    ScriptResult::Same { calls }
}
