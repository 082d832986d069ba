//! What a refusal meant.

use hypercall::{Xen, XenErrno};

use super::Detached;
use crate::addr::{AddressBits, Mfn, Order, Pfn};
use crate::exchange::call::{Rest, exchange};
use crate::exchange::recover::Knowledge;
use crate::exchange::{ExchangeError, Node, Part, Placement, node_permitted, order_permitted};
use crate::paging::LinearMapping;

/// Where no guest's memory lies: Xen keeps the machine's first MiB and more to itself.
const NOWHERE: Placement = Placement::below(match AddressBits::new(13) {
    Ok(bits) => bits,
    Err(_) => AddressBits::UNLIMITED,
});

/// Whether Xen was told where the memory has to lie.
pub(super) const fn limited(placement: Placement) -> bool {
    placement.bits.get() < AddressBits::UNLIMITED.get()
}

impl<X: Xen, L: LinearMapping> Detached<'_, X, L> {
    /// Says what a refusal meant. Where an errno has two causes they are told apart by asking.
    pub(super) fn explain(&self, errno: XenErrno, part: &Part) -> ExchangeError {
        let xen = self.exchanger.xen;
        let (order, placement) = (part.input().max(part.output()), part.placement());
        match errno {
            XenErrno::EPERM => match order_permitted(xen, order) {
                Ok(()) => ExchangeError::NotPermitted,
                Err(_) => ExchangeError::OrderNotPermitted { order },
            },
            XenErrno::EINVAL => match placement.node {
                Node::Exactly(node) if !node_permitted(xen, node) => {
                    ExchangeError::NodeNotPermitted { node }
                }
                _ => {
                    let first = self.run.as_ref().map(|run| run.first().add(part.first()));
                    let first = first.unwrap_or(Pfn::new(part.first()));
                    ExchangeError::FrameRefused { first, frames: part.chunk() }
                }
            },
            XenErrno::ENOMEM if part.output() == Order::ZERO && limited(placement) => {
                ExchangeError::NoMemoryBelow { bits: placement.bits }
            }
            XenErrno::ENOMEM => ExchangeError::NoMemory { order, bits: placement.bits },
            XenErrno::EOPNOTSUPP => ExchangeError::TranslatedGuest,
            errno => ExchangeError::Refused { errno },
        }
    }

    /// Finds the frame that Xen does not take in the chunk that a part begins with.
    ///
    /// Xen takes all frames of a chunk before it looks for memory. So an exchange for memory that
    /// there can't be moves nothing, and tells by its errno whether a half of the chunk was in
    /// order (`ENOMEM`) or not (`EINVAL`). `None` where Xen answers anything else.
    pub(super) fn name_busy_frame(&mut self, part: &Part) -> Option<ExchangeError> {
        let run_first = self.run.as_ref()?.first();
        let (mut first, mut frames) = (part.first(), part.chunk());
        loop {
            let asked = (frames / 2).max(1);
            let order = Order::new(asked.ilog2()).ok()?;
            let question = Part::gather(first, 1, order, NOWHERE);
            let beneath = &mut self.beneath[first as usize..][..asked as usize];
            let mfn = Mfn::new(*beneath.first()?);
            let pfn = run_first.add(first);
            let xen = self.exchanger.xen;
            // SAFETY: as in `Exchanged::step`.
            let answer = unsafe { exchange(xen, pfn, &question, beneath, &mut [0]) };
            match answer.rest {
                Rest::Refused(XenErrno::EINVAL) if frames == 1 => {
                    let holder = self.exchanger.linear.holder(pfn, Some(mfn));
                    return Some(ExchangeError::FrameBusy { pfn, mfn: Some(mfn), holder });
                }
                Rest::Refused(XenErrno::EINVAL) => frames = asked,
                Rest::Refused(XenErrno::ENOMEM) if frames > 1 => {
                    first += asked;
                    frames -= asked;
                }
                Rest::None | Rest::Refused(_) => return None,
                Rest::Torn { errno, exchanged } => {
                    self.tear(&question, &answer);
                    return Some(ExchangeError::Torn { errno, exchanged });
                }
                Rest::BadExtent(mfn) => {
                    self.knowledge = Knowledge::lost(&question);
                    let bits = NOWHERE.bits;
                    return Some(ExchangeError::BadExtent { mfn, order, bits });
                }
            }
        }
    }
}
