//! Moves memory that is in use to other machine frames.
//!
//! Two runs swap their machine frames: the one that is in use, and a spare one. The bytes are copied
//! before. Xen takes no frame and checks no reference here, so [`Relocator::check`] asks the kernel
//! whether anything else references the run.
//!
//! # What a refusal leaves
//! While both runs are unmapped, the machine frames of a pair have the same bytes. So each of them can
//! back the frame in use. Xen's M2P decides: its records are written in an order that leaves at least one
//! machine frame for the frame in use after each write. A frame is quarantined only if Xen refuses to map
//! it to either of the two ([M6](crate::rules#M6)).

use core::mem;

use arrayvec::ArrayVec;
use hypercall::ops::MmuUpdate;
use hypercall::trace::{Phase, Span};
use hypercall::{DomId, Xen, XenErrno};

use super::detached::{note_backing, purge};
use super::entries::{MapResult, UNKNOWN, clear_entries, map_entries};
use crate::addr::{Mfn, Pfn};
use crate::exchange::accounts::{Accounts, UnwindGuard};
use crate::exchange::error::ExchangeError;
use crate::exchange::failure::Remaining;
use crate::exchange::guest::GuestHandle;
use crate::exchange::request::has_room;
use crate::frames::FrameRun;
use crate::p2m::P2m;
use crate::paging::{FrameInUse, LinearMapping};

/// Pairs of frames whose records are written by one hypercall: two writes each.
const PAIRS: usize = 256;

/// Moves memory that is in use to other machine frames, in a PV guest.
#[derive(Debug)]
pub struct Relocator<'a, X, L> {
    guest: GuestHandle<'a, X, L>,
}

/// What became of the two runs of a relocation.
#[derive(Debug)]
#[must_use = "dropping it leaks the frames of both runs"]
pub struct Relocation<'a> {
    /// The frames in use, mapped. Those that remain hold their bytes.
    pub run: Remaining<'a>,
    /// The spare frames, mapped. They may hold bytes of the run: zero them before they are used.
    pub spare: Remaining<'a>,
    /// The number of pairs that swapped their machine frames.
    pub moved: u64,
    /// Why not all pairs swapped them.
    pub error: Option<ExchangeError>,
}

impl<'a, X: Xen, L: LinearMapping> Relocator<'a, X, L> {
    /// Returns a relocator.
    ///
    /// # Safety
    /// * `xen`, `p2m` and `linear` belong to the same PV guest, the one that this code runs in.
    /// * Every [`FrameRun`] of the program names frames of that guest.
    pub const unsafe fn new(
        xen: &'a X,
        p2m: P2m<'a>,
        linear: &'a L,
        accounts: &'a Accounts,
    ) -> Self {
        Self { guest: GuestHandle { xen, p2m, linear, accounts } }
    }

    /// Drops the aliases of a run that nothing uses, and checks that nothing else references it.
    ///
    /// Makes hypercalls, and may walk all page tables once. So it must not be called in an interrupt
    /// handler or under a lock of the kernel's.
    ///
    /// # Errors
    /// [`ExchangeError::FrameBusy`]: a frame, and what references it.
    pub fn check(&self, run: &FrameRun) -> Result<(), ExchangeError> {
        let guest = &self.guest;
        guest.xen.within(Span::Phase(Phase::Purge), || {
            purge(guest, run)?;
            let unreferenced = guest.linear.check_unreferenced(run, &guest.p2m);
            unreferenced.map_err(|FrameInUse { pfn, holder }| ExchangeError::FrameBusy {
                pfn,
                mfn: guest.p2m.mfn(pfn),
                holder,
            })
        })
    }

    /// Gives the machine frames of `spare` to `run`, and those of `run` to `spare`. The bytes of `run` stay
    /// at their guest addresses.
    ///
    /// Call [`check`](Self::check) before. Both runs have the same length; `list` is lent for the time of
    /// the call and has two entries per frame. Makes hypercalls that take time in proportion to the run,
    /// one flush among them ([F2](crate::rules#F2)), so it must not be called in an interrupt handler or
    /// under a lock of the kernel's.
    ///
    /// After an error ([`Relocation::error`]) both runs are mapped again, without the frames that are
    /// quarantined.
    pub fn relocate(&self, run: FrameRun, spare: FrameRun, list: &mut [u64]) -> Relocation<'a> {
        let guest = self.guest;
        if let Err(error) = prepare(&guest, &run, &spare, list) {
            let (run, spare) = (run.into(), spare.into());
            return Relocation { run, spare, moved: 0, error: Some(error) };
        }
        let frames = run.frames();
        let (backing, rest) = list.split_at_mut(frames as usize);
        let spare_backing = &mut rest[..frames as usize];
        let guard = UnwindGuard::new(guest.accounts, 2 * frames);
        // SAFETY: both runs are populated and mapped, and nothing else uses them
        // ([M1](crate::rules#M1)). They are apart, because a frame has one owner.
        unsafe { guest.linear.copy(run.first(), spare.first(), frames) };
        let mut pairs =
            Pairs { guest, first: run.first(), spare: spare.first(), backing, spare_backing };
        let detached =
            guest.xen.within(Span::Phase(Phase::Detach), || detach(&guest, &run, &spare));
        let swapped = guest.xen.within(Span::Phase(Phase::Exchange), || match detached {
            Ok(()) => pairs.swap_all(),
            Err(error) => Swapped { pairs: 0, error: Some(error) },
        });
        let attached = guest.xen.within(Span::Phase(Phase::Attach), || pairs.attach());
        guard.disarm();
        guest.accounts.quarantine(attached.lost + attached.spare_lost);
        Relocation {
            run: Remaining::in_p2m(run, attached.lost, guest.p2m),
            spare: Remaining::in_p2m(spare, attached.spare_lost, guest.p2m),
            moved: swapped.pairs - attached.swapped_back,
            error: swapped.error.or(attached.error),
        }
    }
}

/// Checks the request, writes down what backs both runs, and drops the aliases of both. Nothing has moved
/// yet.
fn prepare<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    spare: &FrameRun,
    list: &mut [u64],
) -> Result<(), ExchangeError> {
    if run.frames() != spare.frames() {
        return Err(ExchangeError::BadPart { first: 0, frames: spare.frames(), run: run.frames() });
    }
    has_room(2 * run.frames(), list)?;
    let (backing, spare_backing) = list.split_at_mut(run.frames() as usize);
    note_backing(guest, run, backing)?;
    note_backing(guest, spare, spare_backing)?;
    // The flush at the end of `detach` covers these addresses, too ([F5](crate::rules#F5)).
    guest.xen.within(Span::Phase(Phase::Purge), || {
        purge(guest, run)?;
        purge(guest, spare)
    })
}

/// Takes both runs out of the linear mapping and out of the P2M, and flushes.
fn detach<X: Xen, L: LinearMapping>(
    guest: &GuestHandle<'_, X, L>,
    run: &FrameRun,
    spare: &FrameRun,
) -> Result<(), ExchangeError> {
    for run in [run, spare] {
        clear_entries(guest, run)?;
        guest.p2m.set_run(run.first(), run.iter().map(|_| None));
    }
    // No vCPU may reach the old machine frame of an address after the new one is mapped there
    // ([F2](crate::rules#F2)).
    // SAFETY: `Relocator::new` requires that `xen` and `linear` belong to the same guest.
    let flushed = unsafe { guest.linear.flushes().flush_all(guest.xen) };
    flushed.map_err(|errno| ExchangeError::Flush { errno })
}

/// How many pairs are swapped, and why the others are not.
struct Swapped {
    pairs: u64,
    error: Option<ExchangeError>,
}

/// How both runs were mapped.
struct Attached {
    /// Frames of the run that are quarantined.
    lost: u64,
    /// Spare frames that are quarantined.
    spare_lost: u64,
    /// Pairs that were swapped back, because Xen refused to map the run to the new machine frame.
    swapped_back: u64,
    /// Why Xen refused to map a frame of the run, for the first of those that it refused.
    error: Option<ExchangeError>,
}

/// Pairs of a frame in use and a spare one, both unmapped, whose machine frames have the same bytes.
struct Pairs<'p, 'a, X, L> {
    guest: GuestHandle<'a, X, L>,
    first: Pfn,
    spare: Pfn,
    /// What backs the frames in use, by Xen's M2P.
    backing: &'p mut [u64],
    /// What backs the spare frames, by Xen's M2P, or [`UNKNOWN`].
    spare_backing: &'p mut [u64],
}

impl<X: Xen, L: LinearMapping> Pairs<'_, '_, X, L> {
    /// Swaps the machine frames of all pairs. If Xen refuses one, swaps back those before it.
    fn swap_all(&mut self) -> Swapped {
        let end = self.backing.len();
        let Swapped { pairs, error } = self.swap(0, end);
        let mut swapped = pairs;
        if error.is_some() {
            let (mut at, end) = (0, pairs as usize);
            while at < end {
                let back = self.swap(at, end).pairs;
                swapped -= back;
                // A pair that Xen refuses stays swapped.
                at += back as usize + 1;
            }
        }
        Swapped { pairs: swapped, error }
    }

    /// Swaps the machine frames of the pairs from `at` to `end`, up to the first that Xen refuses.
    ///
    /// Never inlined, so that at most one batch is on the stack.
    #[inline(never)]
    fn swap(&mut self, at: usize, end: usize) -> Swapped {
        let mut done = at;
        let mut error = None;
        while done < end && error.is_none() {
            let batch = done..end.min(done + PAIRS);
            let updates: ArrayVec<_, { 2 * PAIRS }> =
                batch.flat_map(|index| self.updates(index)).collect();
            let (written, result) = self.write(&updates);
            for index in done..done + written / 2 {
                mem::swap(&mut self.backing[index], &mut self.spare_backing[index]);
            }
            done += written / 2;
            if let Err(errno) = result {
                let number = match written % 2 {
                    0 => self.spare_backing[done],
                    _ => self.backing[done],
                };
                error = Some(ExchangeError::Record { mfn: Mfn::new(number), errno });
                if written % 2 == 1 {
                    self.revert(done);
                }
            }
        }
        Swapped { pairs: (done - at) as u64, error }
    }

    /// Returns the writes that swap a pair. Between them both records name the frame in use, so one
    /// machine frame has its bytes and its name at all times.
    fn updates(&self, index: usize) -> [MmuUpdate; 2] {
        let (pfn, spare) = (self.first.add(index as u64), self.spare.add(index as u64));
        [
            MmuUpdate::machine_to_phys(Mfn::new(self.spare_backing[index]), pfn.number()),
            MmuUpdate::machine_to_phys(Mfn::new(self.backing[index]), spare.number()),
        ]
    }

    /// Undoes the first write of a pair. If Xen refuses, what backs the spare frame is unknown.
    #[cold]
    fn revert(&mut self, index: usize) {
        let (mfn, spare) = (Mfn::new(self.spare_backing[index]), self.spare.add(index as u64));
        let (_, result) = self.write(&[MmuUpdate::machine_to_phys(mfn, spare.number())]);
        if result.is_err() {
            self.spare_backing[index] = UNKNOWN;
        }
    }

    /// Writes records of the M2P. Returns how many Xen wrote.
    fn write(&self, updates: &[MmuUpdate]) -> (usize, Result<u64, XenErrno>) {
        let mut done = 0;
        // SAFETY: the writes change no mapping. They name machine frames of both runs, which nothing
        // maps or uses ([M1](crate::rules#M1), [M2](crate::rules#M2)). Updates and counter are borrowed,
        // so nothing else touches them during the call ([M3](crate::rules#M3)).
        let result = unsafe { self.guest.xen.mmu_update(updates, &mut done, DomId::SELF) };
        match result {
            Ok(_) => (updates.len(), result),
            Err(_) => ((done as usize).min(updates.len() - 1), result),
        }
    }

    /// Maps both runs as Xen's M2P says.
    fn attach(&mut self) -> Attached {
        let mut mapping = MapResult { lost: 0, error: None };
        map_entries(&self.guest, self.first, self.backing, &mut mapping);
        let (mut lost, mut swapped_back) = (mapping.lost, 0);
        if lost > 0 {
            for index in 0..self.backing.len() {
                if self.guest.p2m.mfn(self.first.add(index as u64)).is_none()
                    && self.map_to_other(index)
                {
                    lost -= 1;
                    swapped_back += 1;
                }
            }
        }
        let mut spare = MapResult { lost: 0, error: None };
        map_entries(&self.guest, self.spare, self.spare_backing, &mut spare);
        Attached { lost, spare_lost: spare.lost, swapped_back, error: mapping.error }
    }

    /// Maps a frame in use to the other machine frame of its pair, which has the same bytes. Returns false
    /// if Xen refuses that, too.
    #[cold]
    fn map_to_other(&mut self, index: usize) -> bool {
        if self.spare_backing[index] == UNKNOWN || self.swap(index, index + 1).pairs == 0 {
            return false;
        }
        let mut mapping = MapResult { lost: 0, error: None };
        let pfn = self.first.add(index as u64);
        map_entries(&self.guest, pfn, &self.backing[index..=index], &mut mapping);
        mapping.lost == 0
    }
}
