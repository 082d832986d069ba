//! A host whose low memory is fragmented, for a test of other domains: this guest holds every second
//! 64 KiB of it.

use alloc::vec::Vec;

use xen_contig::addr::{AddressBits, Order};
use xen_contig::exchange::ExchangeError;

use super::owned::{OwnedExtent, free_remaining};
use super::{Check, Test, TestContext, TestOutcome, error, fail, skip};
use crate::command_line::When;
use crate::edu::MASK;
use crate::exit::hold;
use crate::extent::ExtentRun;
use crate::machine::Machine;
use crate::say;

/// The low memory: what the `edu` device reaches.
const BITS: AddressBits = match AddressBits::new(MASK.count_ones()) {
    Ok(bits) => bits,
    Err(_) => panic!("the mask has no more than 64 bits"),
};

/// 64 KiB.
const PIECE: Order = match Order::new(4) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

/// The smallest order that must not be available afterwards.
const LARGER: Order = match Order::new(5) {
    Ok(order) => order,
    Err(_) => Order::ZERO,
};

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("fragment-low-memory", fragment).when(When::Named));
}

/// Takes all low memory in pieces, and returns every second one to Xen. The kernel then holds.
fn fragment(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let mut pieces = Vec::new();
    while let Some(extent) = acquire(machine, PIECE)? {
        pieces.push(OwnedExtent::of(machine, extent));
    }
    let taken = pieces.len();
    let is_kept =
        |piece: &OwnedExtent<'_>| (piece.mfn().number() / PIECE.frames()).is_multiple_of(2);
    let (kept, returned): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_kept);
    for piece in returned {
        piece.release()?;
    }
    if kept.is_empty() || kept.len() == taken {
        fail!(
            "{} of {taken} pieces of 64 KiB below 2^{BITS} are held, expected every second one",
            kept.len()
        );
    }
    if let Some(extent) = acquire(machine, LARGER)? {
        let extent = OwnedExtent::of(machine, extent);
        fail!("Xen still has an extent of order {LARGER} at mfn {}", extent.mfn());
    }
    say!(
        "fragment: holds {} of {taken} pieces of 64 KiB below 2^{BITS}; Xen has no larger one there",
        kept.len()
    );
    hold()
}

/// Exchanges free frames for a low extent. Returns `None` if Xen has none.
fn acquire(machine: &Machine, order: Order) -> Result<Option<ExtentRun>, TestOutcome> {
    let Some(exchanger) = machine.exchanger() else {
        skip!("the test needs the exchange: {}", machine.capability)
    };
    let (run, lists) = (machine.take(order.frames()), machine.lists(order.frames()));
    let (Some(run), Some(mut lists)) = (run, lists) else {
        error!("the guest has no free memory left; give it more than the low memory of the host")
    };
    match exchanger.acquire(run, BITS, lists.words()) {
        Ok(extent) => Ok(Some(extent)),
        Err(failure) => match free_remaining(machine, failure) {
            ExchangeError::NoMemory { .. } | ExchangeError::NoMemoryBelow { .. } => Ok(None),
            error => fail!("exchanging for an extent of order {order} below 2^{BITS}: {error}"),
        },
    }
}
