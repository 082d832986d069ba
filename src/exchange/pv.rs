//! The exchange in a PV guest.

use core::sync::atomic::Ordering::Relaxed;

use hypercall::Xen;

use super::call::out_list_len;
use super::transaction::{Attached, Mapped};
use super::{ExchangeError, ExchangeFailure, Left, Part, Placement, Plan};
use crate::addr::{AddressBits, MachineAddr, Mfn, Order};
use crate::frames::FrameRun;
use crate::p2m::P2m;
use crate::paging::LinearMapping;
use crate::sync::{AtomicU64, const_fn};

/// Frames that a failure left in nobody's hands (M1, M6).
#[derive(Debug, Default)]
pub struct Accounts {
    quarantined: AtomicU64,
}

impl Accounts {
    const_fn! {
        /// Nothing lost yet.
        pub const fn new() -> Self {
            Self { quarantined: AtomicU64::new(0) }
        }
    }

    /// How many frames are quarantined.
    pub fn quarantined(&self) -> u64 {
        self.quarantined.load(Relaxed)
    }

    pub(super) fn quarantine(&self, frames: u64) {
        self.quarantined.fetch_add(frames, Relaxed);
    }
}

/// A run whose machine frames are one extent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an extent that is dropped is lost; give it back with Exchanger::release"]
pub struct Extent {
    run: FrameRun,
    mfn: Mfn,
    order: Order,
}

impl Extent {
    /// The guest frames.
    pub const fn run(&self) -> &FrameRun {
        &self.run
    }

    /// The first machine frame; the others follow it.
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// The machine address of the first byte.
    pub const fn machine_addr(&self) -> MachineAddr {
        MachineAddr::of(self.mfn)
    }

    /// How many frames, as a power of two.
    pub const fn order(&self) -> Order {
        self.order
    }
}

/// Makes runs of guest frames contiguous in the machine, and ordinary again.
#[derive(Debug)]
pub struct Exchanger<'a, X, L> {
    pub(super) xen: &'a X,
    pub(super) p2m: &'a P2m<'a>,
    pub(super) linear: &'a L,
    pub(super) accounts: &'a Accounts,
    limit: Order,
}

// Not derived: a derive would ask the same of X and L, which are only borrowed.
impl<X, L> Clone for Exchanger<'_, X, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X, L> Copy for Exchanger<'_, X, L> {}

impl<'a, X: Xen, L: LinearMapping> Exchanger<'a, X, L> {
    /// An exchanger for a guest whose frames `p2m` and `linear` describe, with extents up to
    /// `limit` (see [`order_limit`](super::order_limit)).
    pub const fn new(
        xen: &'a X,
        p2m: &'a P2m<'a>,
        linear: &'a L,
        accounts: &'a Accounts,
        limit: Order,
    ) -> Self {
        Self { xen, p2m, linear, accounts, limit }
    }

    /// The same with another limit, for those who want Xen's own answer above the limit.
    #[must_use]
    pub const fn with_limit(self, limit: Order) -> Self {
        Self { limit, ..self }
    }

    /// The highest order of an extent.
    pub const fn limit(&self) -> Order {
        self.limit
    }

    /// Swaps the machine frames beneath `run` for one contiguous extent below `2^bits`, zeroed.
    ///
    /// `list` is lent for the time of the call, an entry per frame. It must be memory that Xen can
    /// read, which any mapped memory of the guest outside the run is (M3).
    ///
    /// # Errors
    /// Why not; the run comes back as it was, but for its content, which is zeroed, and except
    /// where the error says quarantine. Where Xen had memory below the limit but none in a row, one
    /// frame of the run has other memory beneath it: it went there and back to find that out.
    pub fn acquire(
        &self,
        run: FrameRun,
        bits: AddressBits,
        list: &mut [u64],
    ) -> Result<Extent, ExchangeFailure> {
        let plan = match Plan::new(run.frames(), bits, self.limit) {
            Ok(plan) => plan,
            Err(error) => return Err(ExchangeFailure { error, left: Left::Whole(run) }),
        };
        let part = Part::gather(0, 1, plan.order, Placement::below(bits));
        let mut out = [0];
        let lists = Lists { beneath: list, scratch: &mut out };
        let run = self.whole(run, &[part], lists)?;
        match self.p2m.mfn(run.first()) {
            Some(mfn) => Ok(Extent { run, mfn, order: plan.order }),
            None => {
                let error = ExchangeError::NotPopulated { pfn: run.first() };
                Err(ExchangeFailure { error, left: Left::Whole(run) })
            }
        }
    }

    /// Swaps the extent back for single frames, wherever they are: the mirror image of
    /// [`acquire`](Self::acquire). The run comes back zeroed. `list` has two entries per frame.
    ///
    /// An extent of an order that Xen has come to refuse since (C04) goes back frame by frame.
    ///
    /// # Errors
    /// Why not. The run is in the error, except where that says quarantine; its memory is ordinary
    /// memory either way, it merely stays contiguous.
    pub fn release(&self, extent: Extent, list: &mut [u64]) -> Result<FrameRun, ExchangeFailure> {
        let Extent { run, order, .. } = extent;
        let frames = run.frames();
        if (list.len() as u64) < 2 * frames {
            let error = ExchangeError::ListTooShort { needed: 2 * frames, len: list.len() };
            return Err(ExchangeFailure { error, left: Left::Whole(run) });
        }
        let (beneath, scratch) = list.split_at_mut(frames as usize);
        let lists = Lists { beneath, scratch };
        let refused = match self.whole(run, &[Part::scatter(0, order)], lists) {
            Err(ExchangeFailure {
                error: ExchangeError::OrderNotPermitted { .. },
                left: Left::Whole(run),
            }) => run,
            other => return other,
        };
        let (beneath, scratch) = list.split_at_mut(frames as usize);
        self.whole(refused, &[Part::replace(0, frames)], Lists { beneath, scratch })
    }

    /// Exchanges all parts or none, and zeroes the run.
    fn whole(
        &self,
        run: FrameRun,
        parts: &[Part],
        lists: Lists<'_>,
    ) -> Result<FrameRun, ExchangeFailure> {
        let Progress { run, error, .. } = self.exchange(run, parts, OnRefusal::Undo, lists)?;
        // SAFETY: the run is mapped again and in our hands alone (M1); what another domain may have
        // left there ends here (C56). After a refusal, too: some of it may have gone to and fro.
        unsafe { self.linear.zero(run.first(), run.frames()) };
        match error {
            Some(error) => Err(ExchangeFailure { error, left: Left::Whole(run) }),
            None => Ok(run),
        }
    }

    /// Exchanges the parts of `run` in as many calls as there are parts, with one flush in all.
    ///
    /// Frames that no part names stay what they are. The content of the run is gone: what comes
    /// from Xen is not zeroed here.
    ///
    /// # Errors
    /// Where nothing could be asked of Xen, and where Xen failed behind the commit point: then the
    /// run comes back zeroed as ordinary memory, but for the frames of which nobody knows what is
    /// beneath them: those are quarantined. A refusal is no error here but in [`Progress::error`].
    pub fn exchange(
        &self,
        run: FrameRun,
        parts: &[Part],
        on_refusal: OnRefusal,
        lists: Lists<'_>,
    ) -> Result<Progress, ExchangeFailure> {
        let Lists { beneath, scratch } = lists;
        if let Err(error) = check(&run, parts, beneath, scratch) {
            return Err(ExchangeFailure { error, left: Left::Whole(run) });
        }
        let beneath = &mut beneath[..run.frames() as usize];
        let detached = Mapped { exchanger: *self, run }.detach(beneath)?;
        let mut exchanged = detached.exchange(parts, scratch);
        if exchanged.error.is_some() {
            exchanged = match on_refusal {
                OnRefusal::Undo => exchanged.undo(parts, scratch),
                OnRefusal::Return => exchanged,
                OnRefusal::Resume { times } => {
                    for _ in 0..times {
                        if exchanged.error.is_some() {
                            exchanged = exchanged.resume(parts, scratch);
                        }
                    }
                    if exchanged.error.is_some() {
                        exchanged.undo(parts, scratch)
                    } else {
                        exchanged
                    }
                }
            };
        }
        let Attached { run, done, error } = exchanged.attach()?;
        Ok(Progress { run, done, error })
    }
}

/// What to do when Xen refuses midway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// All or nothing: swap what was exchanged for single frames again.
    #[default]
    Undo,
    /// Keep what was exchanged.
    Return,
    /// Ask again for the rest, so many times; then undo.
    Resume {
        /// How many times.
        times: u32,
    },
}

/// Memory that is lent for the time of an exchange. It must be memory that Xen can read and write,
/// which any mapped memory of the guest outside the run is (M3).
#[derive(Debug)]
pub struct Lists<'l> {
    /// An entry per frame of the run.
    pub beneath: &'l mut [u64],
    /// An entry per extent that comes, of the part with the most of them.
    pub scratch: &'l mut [u64],
}

/// How far an exchange came.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    /// The run, mapped.
    pub run: FrameRun,
    /// Frames that were exchanged, counted through the parts in order.
    pub done: u64,
    /// Why not all of them.
    pub error: Option<ExchangeError>,
}

/// Whether the request makes sense, before anything moves.
fn check(
    run: &FrameRun,
    parts: &[Part],
    beneath: &[u64],
    scratch: &[u64],
) -> Result<(), ExchangeError> {
    let too_short = |needed: u64, list: &[u64]| match needed > list.len() as u64 {
        true => Err(ExchangeError::ListTooShort { needed, len: list.len() }),
        false => Ok(()),
    };
    too_short(run.frames(), beneath)?;
    let mut end = 0;
    for part in parts {
        too_short(out_list_len(part), scratch)?;
        // In order and apart: no frame is named twice (C33).
        if part.first() < end || part.frames() == 0 {
            return Err(ExchangeError::BadSize { frames: part.frames() });
        }
        end = part.first() + part.frames();
        if end > run.frames() {
            return Err(ExchangeError::BadSize { frames: end });
        }
    }
    Ok(())
}
