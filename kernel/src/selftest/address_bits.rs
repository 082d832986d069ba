//! Is an address limit kept at every width, and is a limit without memory below it refused?

use alloc::vec::Vec;

use xen_contig::addr::AddressBits;
use xen_contig::exchange::ExchangeError;

use super::owned::free_remaining;
use super::{Check, Test, TestContext, fail, skip};
use crate::say;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("address-bits", address_bits));
}

fn address_bits(context: &TestContext<'_>) -> Check {
    let machine = context.machine;
    let Some(exchanger) = machine.exchanger() else {
        skip!("Xen does not reveal machine frames to translated guests")
    };
    let Some(mut lists) = machine.lists(2) else { skip!("the guest has no free frame") };
    let mut lowest_served = None;
    let mut refused = None;
    for bits in (13..=64).rev().filter_map(|bits| AddressBits::new(bits).ok()) {
        let Some(run) = machine.take(1) else { skip!("the guest has no free frame") };
        match exchanger.acquire(run, bits, lists.words()) {
            Ok(extent) => {
                let mfn = extent.mfn();
                match exchanger.release(extent, lists.words()) {
                    Ok(run) => machine.give(run),
                    Err(failure) => {
                        fail!("releasing mfn {mfn}: {}", free_remaining(machine, failure))
                    }
                }
                if mfn.number() >= bits.frame_limit() {
                    fail!("expected an address below 2^{bits}, got mfn {mfn}");
                }
                if let Some(refused) = refused {
                    fail!("Xen served a frame below 2^{bits}, but refused one below 2^{refused}");
                }
                lowest_served = Some(bits);
            }
            Err(failure) => match free_remaining(machine, failure) {
                ExchangeError::NoMemoryBelow { bits: told, .. } if told == bits => {
                    refused = refused.or(Some(bits));
                }
                error => {
                    fail!("2^{bits}: expected the error that no memory is below, got: {error}")
                }
            },
        }
    }
    match (lowest_served, refused) {
        (Some(lowest), Some(refused)) => {
            say!("# address-bits: served down to 2^{lowest}, refused from 2^{refused} down");
            Ok(())
        }
        (None, _) => fail!("Xen served no frame, even without a limit"),
        (_, None) => fail!("Xen refused no limit, even 2^13"),
    }
}
