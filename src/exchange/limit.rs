//! The highest order that Xen lets this domain have in one extent, found by asking.
//!
//! 4.17 to master give a plain domU order 9, one with I/O resources 12, dom0 18, and
//! `memop-max-order=` changes all three (`max_order` in `xen/common/memory.c`). So it is asked for,
//! never assumed.

use core::fmt;
use core::ptr;

use hypercall::abi::memory::{MemoryExchange, MemoryReservation};
use hypercall::ops::{MemFlags, MemoryOp};
use hypercall::{DomId, Xen, XenErrno};

use crate::addr::Order;

/// Not even a single frame may be exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoOrderPermitted {
    /// What Xen answered for order 0.
    pub errno: XenErrno,
}

impl fmt::Display for NoOrderPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen permits this domain no exchange at all: {} for order 0", self.errno)
    }
}

impl core::error::Error for NoOrderPermitted {}

/// Asks whether Xen permits extents of `order`, in a way that can't move a frame.
///
/// `memory_exchange` looks at the orders first (`EPERM`) and at the counts next: one extent
/// exchanged of none is `EINVAL`, so that answer means that the order passed.
///
/// # Errors
/// What Xen answered for the order.
pub fn order_permitted(xen: &impl Xen, order: Order) -> Result<(), XenErrno> {
    let empty = MemoryReservation {
        extent_start: ptr::null_mut(),
        nr_extents: 0,
        extent_order: 0,
        mem_flags: 0,
        domid: DomId::SELF,
    };
    let output = MemoryReservation { extent_order: order.get(), ..empty };
    let mut question = MemoryExchange { input: empty, output, nr_exchanged: 1 };
    // SAFETY: there are no extents, so no list is read and no frame moves.
    match unsafe { xen.memory_op(MemoryOp::Exchange(&mut question)) } {
        Ok(_) | Err(XenErrno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Asks whether Xen lets this domain have memory of exactly that NUMA node, in a way that can't move
/// a frame: the question is about a domain that can't be. `memory_exchange` looks at the node first
/// (`EINVAL`) and at the domain next (`ESRCH`).
pub fn node_permitted(xen: &impl Xen, node: u8) -> bool {
    /// `DOMID_INVALID` in `public/xen.h`.
    const NOBODY: DomId = DomId(0x7ff4);
    let (mut input, mut output) = ([0], [0]);
    let one = |list: &mut [u64; 1], mem_flags: MemFlags| MemoryReservation {
        extent_start: list.as_mut_ptr(),
        nr_extents: 1,
        extent_order: 0,
        mem_flags: mem_flags.raw(),
        domid: NOBODY,
    };
    let mut question = MemoryExchange {
        input: one(&mut input, MemFlags::default()),
        output: one(&mut output, MemFlags::default().exactly_node(node)),
        nr_exchanged: 0,
    };
    // SAFETY: both lists have their one entry, and no domain has the number whose frames it names.
    let answer = unsafe { xen.memory_op(MemoryOp::Exchange(&mut question)) };
    answer != Err(XenErrno::EINVAL)
}

/// The highest order that Xen permits this domain, at most [`Order::MAX`].
///
/// # Errors
/// Where not even order 0 is permitted.
pub fn order_limit(xen: &impl Xen) -> Result<Order, NoOrderPermitted> {
    order_permitted(xen, Order::ZERO).map_err(|errno| NoOrderPermitted { errno })?;
    let permitted = Order::MAX.up_to().take_while(|order| order_permitted(xen, *order).is_ok());
    Ok(permitted.last().unwrap_or(Order::ZERO))
}
