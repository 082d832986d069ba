//! Are a pool's objects sound, and are they allocated without a hypercall in atomic context?

use alloc::vec::Vec;

use xen_contig::dma::{Device, Pool, PoolConfig, PoolErrorKind, PoolObject, Retain};

use super::helpers::{ConfinedGuest, Limits, PAGE, balanced, build, calls, is_shortage};
use super::{Check, Test, TestContext, fail, skip};
use crate::machine::Machine;

/// The size of an object in bytes. A chunk of four pages has four objects, because no object
/// crosses a page.
const SIZE: u64 = 3000;

/// The number of objects in reserve, which is two chunks.
const RESERVE: u64 = 8;

pub fn add(tests: &mut Vec<Test>) {
    tests.push(Test::new("dma-pool", pool).needs_exchange_order(2));
}

fn pool(context: &TestContext<'_>) -> Check {
    // No object crosses a page. The alignment of coherent buffers must not apply to objects.
    let limits = build(|it| it.mask((1 << 36) - 1).boundary(PAGE).align(1 << 16))?;
    let config = PoolConfig::builder("self-test", SIZE).chunk(4 * PAGE);
    let config = match config.reserve(RESERVE).build() {
        Ok(config) => config,
        Err(error) => fail!("the configuration of the pool: {error}"),
    };
    let object = build(|it| it.mask((1 << 36) - 1).boundary(PAGE).align(64))?;
    balanced(context, Retain::NOTHING, |allocator| {
        let confined = ConfinedGuest::to(context.machine, 64)?;
        let device = match Device::new(allocator, "self-test", &limits) {
            Ok(device) => device,
            Err(error) => fail!("making the device: {error}"),
        };
        let mut pool = match Pool::new(&device, config) {
            Ok(pool) => pool,
            Err(error) => match error.kind() {
                PoolErrorKind::Alloc { error: cause, .. } if is_shortage(&cause) => {
                    skip!("{error}")
                }
                _ => fail!("making the pool: {error}"),
            },
        };
        let before = calls();
        let mut objects = take_all(&pool)?;
        if calls() != before || objects.len() as u64 != RESERVE {
            fail!("{} objects, {} hypercalls: {pool}", objects.len(), calls() - before);
        }
        match pool.refill() {
            Ok(RESERVE) => objects.extend(take_all(&pool)?),
            said => fail!("a refill of {RESERVE} objects returned {said:?}"),
        }
        for (index, taken) in objects.iter().enumerate() {
            let number = taken.load::<u64>(0);
            if number != Ok(index as u64 % RESERVE) || taken.check_in_place().is_err() {
                fail!("object {index}, {taken:?}, contains {number:?}");
            }
            if !Limits::of(&object).take(taken.dma_addr().get(), SIZE) {
                fail!("{taken:?} is not within {object:?}");
            }
        }
        drop(objects);
        // The objects were written to, and the next driver must get zeros.
        let again = take_all(&pool)?;
        if again.len() as u64 != 2 * RESERVE {
            fail!("{} of {} objects were available again: {pool}", again.len(), 2 * RESERVE);
        }
        drop(again);
        let (trimmed, left) = (pool.trim(), pool.statistics());
        if trimmed != 2 * RESERVE || left.objects > 0 || left.record_frames > 0 {
            fail!("{trimmed} objects trimmed of {}, {pool}", 2 * RESERVE);
        }
        drop(pool);
        if let Err(in_use) = device.close() {
            fail!("{in_use}");
        }
        confined.check_whole(allocator)
    })
}

/// Allocates every object without growing the pool. Checks that each is zeroed, and numbers it.
fn take_all<'p, 'm>(
    pool: &'p Pool<'_, &'m Machine>,
) -> Result<Vec<PoolObject<'p, &'m Machine>>, super::TestOutcome> {
    let mut objects: Vec<PoolObject<'p, &'m Machine>> = Vec::new();
    loop {
        let mut object = match pool.alloc_atomic() {
            Ok(object) => object,
            Err(error) => match error.kind() {
                PoolErrorKind::Exhausted { .. } => return Ok(objects),
                _ => fail!("allocating from the pool: {error}"),
            },
        };
        let number = objects.len() as u64;
        let zeroed = (0..SIZE / 8).all(|word| object.load(8 * word) == Ok(0_u64));
        if !zeroed || object.store(0, number).is_err() {
            fail!("object {number}, {object:?}, is not zeroed");
        }
        // The last word gets contents that the next user of the object must not see.
        if object.store(SIZE - 8, u64::MAX).is_err() {
            fail!("object {number} has no last word");
        }
        objects.push(object);
    }
}
