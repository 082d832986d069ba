//! What Xen permits this domain, and how it is found.
//!
//! Xen has no call that answers these questions. Those about orders and nodes cannot move a frame: they
//! rely on the order in which `memory_exchange` checks its argument. Whether Xen exchanges memory of a
//! translated guest is found by a trial with one frame, once. An answer that has neither meaning is
//! [`Permission::Unknown`]: no claim is made.

use core::ptr;
use core::sync::atomic::Ordering::Relaxed;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use super::error::ExchangeError;
use crate::addr::Order;
use crate::sync::{AtomicU64, const_fn};

/// What Xen permits, by its answer to a question or a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Xen permits it.
    Granted,
    /// Xen does not permit it.
    Denied,
    /// The answer means neither of the two: an error, or a success that contradicts itself.
    Unknown(Option<XenErrno>),
}

/// What the trial of a translated guest found. It is made once.
#[derive(Debug, Default)]
pub(super) struct Trial(AtomicU64);

impl Trial {
    const NOT_BEGUN: u64 = 0;
    const GRANTED: u64 = 1;
    const DENIED: u64 = 2;
    /// No errno, or begun. Above it the number of an errno is added.
    const UNKNOWN: u64 = 3;

    const_fn! {
        /// Returns a trial that has not begun.
        pub const fn new() -> Self {
            Self(AtomicU64::new(Self::NOT_BEGUN))
        }
    }

    /// Returns true for the first caller, which makes the trial. The answer is unknown meanwhile.
    pub fn begin(&self) -> bool {
        self.0.compare_exchange(Self::NOT_BEGUN, Self::UNKNOWN, Relaxed, Relaxed).is_ok()
    }

    /// Records the answer.
    pub fn record(&self, answer: Permission) {
        let state = match answer {
            Permission::Granted => Self::GRANTED,
            Permission::Denied => Self::DENIED,
            Permission::Unknown(errno) => {
                Self::UNKNOWN + errno.map_or(0, |errno| errno.raw().into())
            }
        };
        self.0.store(state, Relaxed);
    }

    /// Returns the answer; `None` if the trial has not begun.
    pub fn answer(&self) -> Option<Permission> {
        match self.0.load(Relaxed) {
            Self::NOT_BEGUN => None,
            Self::GRANTED => Some(Permission::Granted),
            Self::DENIED => Some(Permission::Denied),
            state => {
                let errno = XenErrno::from_raw((state - Self::UNKNOWN) as u16);
                Some(Permission::Unknown(errno))
            }
        }
    }
}

/// Asks whether Xen permits this domain extents of `order`.
///
/// `memory_exchange` checks the orders first (`EPERM`) and the counts next. The question has a false
/// count: 1 of 0 extents is done. So `EINVAL` means that the order passed
/// ([C03](crate::conformance#C03)).
pub(super) fn order_permitted(xen: &impl Xen, order: Order) -> Permission {
    let empty = MemoryReservation {
        extent_start: ptr::null_mut(),
        nr_extents: 0,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let output = MemoryReservation { extent_order: order.get(), ..empty };
    let mut question = MemoryExchange { input: empty, output, nr_exchanged: 1 };
    // SAFETY: both lists have no entries, so Xen reads no list and moves no frame. The argument is
    // a local that nothing else uses during the call ([M3](crate::rules#M3)).
    match unsafe { xen.memory_op(MemoryOp::Exchange(&mut question)) } {
        Err(XenErrno::EINVAL) => Permission::Granted,
        Err(XenErrno::EPERM) => Permission::Denied,
        answer => Permission::Unknown(answer.err()),
    }
}

/// Returns why Xen answered `EPERM` to an exchange: the order, or the exchange as such.
pub(super) fn why_not_permitted(xen: &impl Xen, order: Order) -> ExchangeError {
    match order_permitted(xen, order) {
        Permission::Denied => ExchangeError::OrderNotPermitted { order },
        Permission::Granted => ExchangeError::NotPermitted,
        Permission::Unknown(_) => ExchangeError::Refused { errno: XenErrno::EPERM },
    }
}

/// Asks whether Xen permits this domain memory of exactly that NUMA node.
///
/// The question is about a domain that cannot exist. `memory_exchange` checks the node first
/// (`EINVAL`) and the domain next (`ESRCH`).
pub(super) fn node_permitted(xen: &impl Xen, node: u8) -> Permission {
    /// `DOMID_INVALID` in `public/xen.h`.
    const NO_DOMAIN: DomId = DomId(0x7ff4);
    let (mut input, mut output) = ([0], [0]);
    let one = |list: &mut [u64; 1], mem_flags: MemFlags| MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: 1,
        extent_order: 0,
        mem_flags: mem_flags.raw(),
        domid: NO_DOMAIN,
    };
    let mut question = MemoryExchange {
        input: one(&mut input, MemFlags::default()),
        output: one(&mut output, MemFlags::default().exactly_node(node)),
        nr_exchanged: 0,
    };
    // SAFETY: both lists have their one entry and are locals that nothing else uses during the call
    // ([M3](crate::rules#M3)). The frame belongs to a domain that does not exist, so none moves.
    match unsafe { xen.memory_op(MemoryOp::Exchange(&mut question)) } {
        Err(XenErrno::EINVAL) => Permission::Denied,
        Err(XenErrno::ESRCH) => Permission::Granted,
        answer => Permission::Unknown(answer.err()),
    }
}

/// Finds the highest order that Xen permits this domain, at most [`Order::MAX`].
///
/// 4.17 to master permit order 9 to a plain domU, 12 to one with I/O resources, and 18 to the control
/// domain. `memop-max-order=` changes all three (`max_order` in `xen/common/memory.c`).
///
/// If the answer for an order is unknown, the order counts as permitted: an exchange of that order
/// will tell.
///
/// # Errors
/// Xen does not permit even order 0, or has no exchange.
pub(super) fn order_limit(xen: &impl Xen) -> Result<Order, ExchangeError> {
    match order_permitted(xen, Order::ZERO) {
        Permission::Denied => {
            return Err(ExchangeError::OrderNotPermitted { order: Order::ZERO });
        }
        Permission::Unknown(Some(errno @ XenErrno::ENOSYS)) => {
            return Err(ExchangeError::Refused { errno });
        }
        Permission::Granted | Permission::Unknown(_) => {}
    }
    let not_denied = |order: &Order| order_permitted(xen, *order) != Permission::Denied;
    Ok(Order::MAX.up_to().take_while(not_denied).last().unwrap_or(Order::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_begins_once_and_its_answer_is_kept() {
        let errnos = (1..4096).map(|raw| Permission::Unknown(XenErrno::from_raw(raw)));
        let others = [Permission::Granted, Permission::Denied, Permission::Unknown(None)];
        for answer in others.into_iter().chain(errnos) {
            let trial = Trial::new();
            assert_eq!(trial.answer(), None);
            assert!(trial.begin());
            // Another vCPU does not wait for the answer.
            assert!(!trial.begin());
            assert_eq!(trial.answer(), Some(Permission::Unknown(None)));
            trial.record(answer);
            assert!(!trial.begin());
            assert_eq!(trial.answer(), Some(answer));
        }
    }
}
