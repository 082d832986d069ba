//! Finds the cause of a refusal. Where an error has several causes, Xen is asked questions that tell
//! them apart.

use hypercall::{Xen, XenErrno};

use super::detached::Detached;
use super::recover::TornExchange;
use crate::addr::{AddressBits, Mfn, Order};
use crate::exchange::error::ExchangeError;
use crate::exchange::part::{Node, Part, Placement};
use crate::exchange::permission::{Permission, node_permitted, why_not_permitted};
use crate::paging::LinearMapping;

/// A limit below which Xen has no memory for guests: it keeps the first MiB of the machine.
pub(super) const NOWHERE: Placement = Placement::below(match AddressBits::new(13) {
    Ok(bits) => bits,
    Err(_) => AddressBits::UNLIMITED,
});

impl<X: Xen, L: LinearMapping> Detached<'_, '_, X, L> {
    /// Returns why Xen refused a part, of which it exchanged nothing.
    pub(super) fn diagnose(
        &mut self,
        errno: XenErrno,
        part: &Part,
    ) -> Result<ExchangeError, TornExchange> {
        match errno {
            XenErrno::EPERM => Ok(why_not_permitted(self.guest.xen, part.order())),
            XenErrno::EINVAL => self.what_is_invalid(part),
            XenErrno::ENOMEM => self.what_is_exhausted(part),
            XenErrno::EOPNOTSUPP => Ok(ExchangeError::TranslatedGuest),
            errno => Ok(ExchangeError::Refused { errno }),
        }
    }

    /// `EINVAL`: the NUMA node, or a frame, and which one?
    fn what_is_invalid(&mut self, part: &Part) -> Result<ExchangeError, TornExchange> {
        let node = match part.placement().node {
            Node::Exactly(node) => match node_permitted(self.guest.xen, node) {
                Permission::Denied => return Ok(ExchangeError::NodeNotPermitted { node }),
                answer => answer,
            },
            Node::Any | Node::Near(_) => Permission::Granted,
        };
        Ok(match self.find_refused_frame(part)? {
            RefusedFrame::At(index) => {
                let pfn = self.run.first().add(index);
                let mfn = self.backing.get(index as usize).map(|number| Mfn::new(*number));
                let holder = self.guest.linear.holder(pfn, mfn);
                ExchangeError::FrameBusy { pfn, mfn, holder }
            }
            RefusedFrame::NoLonger if node == Permission::Granted => ExchangeError::FrameRefused {
                first: self.run.first().add(part.first()),
                frames: part.order().frames(),
            },
            RefusedFrame::NoLonger | RefusedFrame::Unknown => {
                ExchangeError::Refused { errno: XenErrno::EINVAL }
            }
        })
    }

    /// `ENOMEM`: is there no extent of that order, or nothing at all below the limit?
    fn what_is_exhausted(&mut self, part: &Part) -> Result<ExchangeError, TornExchange> {
        let Placement { bits, node } = part.placement();
        let no_extent = ExchangeError::NoMemory { order: part.output(), bits, node };
        // A question would break up the extent that a part gives up.
        if !part.placement().is_limited() || part.input() != Order::ZERO {
            return Ok(no_extent);
        }
        let nothing = ExchangeError::NoMemoryBelow { bits, node };
        if part.output() == Order::ZERO {
            return Ok(nothing);
        }
        // Ask for a single frame: if Xen has one below the limit, only the extent is missing.
        let single = Part::gather(part.first(), 1, Order::ZERO, part.placement());
        let progress = self.exchange_part(&single)?;
        if progress.done == 1 {
            // Return the frame to Xen: repeated requests would otherwise collect all memory below the
            // limit. If Xen refuses, the run keeps it.
            let _kept_if_refused = self.exchange_part(&Part::replace(part.first(), 1))?;
        }
        Ok(match progress.refusal {
            Some(XenErrno::ENOMEM) => nothing,
            _ => no_extent,
        })
    }

    /// Finds the frame that Xen refuses in the first chunk of a part.
    ///
    /// Xen takes all frames of a chunk before it looks for memory. So an exchange for memory that
    /// cannot exist moves nothing. Its error tells whether Xen would take the frames (`ENOMEM`) or not
    /// (`EINVAL`).
    fn find_refused_frame(&mut self, part: &Part) -> Result<RefusedFrame, TornExchange> {
        let (mut first, mut frames) = (part.first(), part.order().frames());
        loop {
            let asked = (frames / 2).max(1);
            let Ok(order) = Order::new(asked.ilog2()) else { return Ok(RefusedFrame::Unknown) };
            let question = Part::gather(first, 1, order, NOWHERE);
            match self.exchange_part(&question)?.refusal {
                Some(XenErrno::EINVAL) if frames == 1 => return Ok(RefusedFrame::At(first)),
                Some(XenErrno::EINVAL) => frames = asked,
                Some(XenErrno::ENOMEM) if frames > 1 => {
                    first += asked;
                    frames -= asked;
                }
                Some(XenErrno::ENOMEM) => return Ok(RefusedFrame::NoLonger),
                _ => return Ok(RefusedFrame::Unknown),
            }
        }
    }
}

/// What the search for a refused frame found.
enum RefusedFrame {
    /// This frame, counted from the first of the run.
    At(u64),
    /// Xen would take all frames by now: the holder has released the frame meanwhile.
    NoLonger,
    /// Xen answered anything but the two errors that tell.
    Unknown,
}
