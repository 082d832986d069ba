//! Xen's answers, while drivers allocate, split and drop buffers.
//!
//! Any call can fail with any error, an exchange can fail at any point, and an answer can be false.
//! Every answer must lead to a true success, to a refusal or to quarantine. The scene checks every
//! frame after every step.

use fake_xen::{ExchangeFault, Lie};
use hypercall::XenErrno;
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::Retain;
use xen_contig::exchange::Node;

use super::Target;
use super::bytes::Bytes;
use crate::scene::{BufferRequest, Setting, Step, run_scene};

const PAGE: u64 = PAGE_SIZE as u64;

/// The highest number of steps. The remaining bytes of an input are ignored.
const STEPS: usize = 24;

pub const TARGET: Target = Target {
    name: "xen",
    run,
    max_len: 256,
    words: &[&[0, 0, 0, 0], &[6, 0, 22, 0], &[7, 1, 0, 0], &[0xff; 8], &[2, 0], &[9, 3], &[10, 20]],
    seeds: || {
        vec![
            vec![0; 64],
            (0..255).collect(),
            (0..255).rev().collect(),
            (0..255_u8).map(|at| at.wrapping_mul(37)).collect(),
        ]
    },
};

fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let kind = bytes.u8();
    let setting = Setting {
        frames: 160,
        retain: if kind & 1 == 0 { Retain::NOTHING } else { Retain::default() },
        translated: kind & 0xc0 == 0xc0,
        max_order: u32::from(kind >> 2) % 8 + 1,
        seed: u64::from(kind),
        preempt: kind & 0x20 != 0,
    };
    run_scene(&setting, |scene| {
        for _ in 0..STEPS {
            if bytes.is_empty() {
                break;
            }
            let step = step(&mut bytes);
            scene.apply(&step);
            scene.check();
        }
        scene.finish();
    });
}

fn step(bytes: &mut Bytes<'_>) -> Step {
    match bytes.u8() % 20 {
        0 | 1 => Step::Alloc(want(bytes)),
        2 => {
            let count = bytes.u8() % 4 + 1;
            Step::Many((0..count).map(|_| want(bytes)).collect())
        }
        3 | 4 => Step::Drop(bytes.u8().into()),
        5 => Step::Split(bytes.u8().into(), bytes.below(40) * PAGE / 2),
        6 | 7 => {
            Step::Fault { call: bytes.below(12) + 1, errno: errno(bytes), after: bytes.below(70) }
        }
        8 | 9 => Step::ExchangeFault(inside(bytes)),
        10 | 11 => Step::ExchangeFault(ExchangeFault::Lie(lie(bytes))),
        12 => Step::Fragment(u32::from(bytes.u8() % 7)),
        13 => Step::Exhaust(bytes.below(80)),
        14 => Step::Relieve,
        15 => Step::MaxOrder(u32::from(bytes.u8() % 10)),
        16 => Step::Deny(bytes.u8() & 1 == 0),
        17 => match bytes.u8() {
            index @ 0..0x80 => Step::Hold(index.into()),
            _ => Step::Unhold,
        },
        18 => match bytes.u8() {
            0 => Step::NoLists(true),
            1..0x40 => Step::NoLists(false),
            0x40..0x80 => Step::Stop { call: bytes.below(6) + 1, after: bytes.below(40) },
            index => Step::Touch((index & 1).into(), bytes.u8().into()),
        },
        _ => match bytes.u8() {
            frames @ 0..0x40 => Step::Reclaim(frames.into()),
            _ => Step::Trim,
        },
    }
}

fn want(bytes: &mut Bytes<'_>) -> BufferRequest {
    let size = match bytes.u16() {
        small @ 0..0xc000 => u64::from(small),
        large => u64::from(large - 0xc000) << 5,
    };
    let flags = bytes.u8();
    let mut want = BufferRequest::bytes(size);
    // Most requests have few constraints. Otherwise the allocator would refuse nearly all.
    if flags & 0x04 != 0 {
        want.segments = usize::from(bytes.u8() % 18);
        want.max_segment = bytes.below(40) << 10;
    }
    if flags & 0x08 != 0 {
        want.mask = u64::from(bytes.u16()) << 8 | 0x1fff;
    }
    if flags & 0x10 != 0 {
        want.align = bytes.u8() % 20;
        want.boundary = bytes.u8() % 24;
    }
    if flags & 0x20 != 0 {
        want.lowest = u64::from(bytes.u16()) << 7;
        want.node = match bytes.u8() {
            node @ 0..8 => Node::Near(node),
            node @ 8..16 => Node::Exactly(node - 8),
            _ => Node::Any,
        };
    }
    want.awake = flags & 0xc0 == 0x80;
    want.one_extent = flags & 0xc0 == 0xc0;
    want
}

fn errno(bytes: &mut Bytes<'_>) -> XenErrno {
    const LIKELY: [u16; 8] = [1, 3, 11, 12, 14, 22, 38, 95];
    let raw = match bytes.u8() {
        at @ 0..0x80 => LIKELY[usize::from(at % 8)],
        _ => bytes.u16() % 4095 + 1,
    };
    XenErrno::from_raw(raw).expect("1 to 4095 are errors")
}

fn inside(bytes: &mut Bytes<'_>) -> ExchangeFault {
    let (kind, at) = (bytes.u8(), bytes.below(64));
    match kind % 6 {
        0 => ExchangeFault::InUnreadable(at),
        1 => ExchangeFault::IommuUnmap(at, errno(bytes)),
        2 => ExchangeFault::OutUnreadable(at),
        3 => ExchangeFault::OutUnwritable(at),
        4 => ExchangeFault::IommuMap(at, errno(bytes)),
        _ => ExchangeFault::Dying,
    }
}

fn lie(bytes: &mut Bytes<'_>) -> Lie {
    let kind = bytes.u8();
    let answer = match kind & 3 {
        0 => Ok(0),
        1 => Ok(bytes.u64() >> 1),
        _ => Err(errno(bytes)),
    };
    let number = |bytes: &mut Bytes<'_>, choice: u8| match choice & 3 {
        0 => None,
        1 => Some(bytes.u8().into()),
        2 => Some(bytes.u16().into()),
        _ => Some(bytes.u64()),
    };
    let count = number(bytes, kind >> 2);
    let out = number(bytes, kind >> 4);
    Lie { commit: kind & 0x80 != 0, answer, count, out }
}
