//! Properties of the allocator under random sequences of steps.
//!
//! Drivers, Xen and other guests act in any order. Every frame is in one place, all tables agree, and
//! every buffer belongs to one driver and meets its constraints.
//!
//! `properties.regressions` keeps the sequences that failed once, and they run first.
//! `PROPTEST_CASES` is the number of sequences for each property.

#![forbid(unsafe_code)]

use fake_xen::{ExchangeFault, Lie};
use fuzz::scene::{BufferRequest, Setting, Step, StepOutcome, run_scene};
use hypercall::XenErrno;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::{AllocError, Retain};
use xen_contig::exchange::Node;

const PAGE: u64 = PAGE_SIZE as u64;

fn config() -> ProptestConfig {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/properties.regressions");
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        max_shrink_iters: 4096,
        ..ProptestConfig::default()
    }
}

fn setting() -> impl Strategy<Value = Setting> {
    let retain = prop_oneof![Just(Retain::NOTHING), Just(Retain::default())];
    let translated = prop_oneof![4 => Just(false), 1 => Just(true)];
    (retain, translated, 2_u32..10, any::<u64>(), any::<bool>()).prop_map(
        |(retain, translated, max_order, seed, preempt)| Setting {
            frames: 384,
            retain,
            translated,
            max_order,
            seed,
            preempt,
        },
    )
}

fn want() -> impl Strategy<Value = BufferRequest> {
    let bytes = prop_oneof![1..PAGE, (1_u64..80).prop_map(|pages| pages * PAGE), 1..80 * PAGE];
    // The machine has 2560 frames, so some frames are in reach and others are not.
    let mask = prop_oneof![
        4 => Just(u64::MAX),
        1 => (20_u32..24).prop_map(|bits| (1 << bits) - 1),
        1 => 2 * PAGE..3000 * PAGE
    ];
    let lowest = prop_oneof![6 => Just(0), 1 => 0..3000 * PAGE];
    let segments = prop_oneof![2 => Just((1, 0)), 1 => (1_usize..17, PAGE..40 * PAGE)];
    let align = prop_oneof![3 => Just(0_u8), 1 => 0_u8..19];
    let boundary = prop_oneof![3 => Just(0_u8), 1 => 12_u8..20];
    let node = prop_oneof![
        8 => Just(Node::Any),
        1 => (0_u8..3).prop_map(Node::Near),
        1 => (0_u8..3).prop_map(Node::Exactly)
    ];
    let rare = || prop::bool::weighted(0.15);
    let place = (mask, lowest, segments, align, boundary, node);
    (bytes, place, rare(), rare()).prop_map(|(bytes, place, awake, one_extent)| {
        let (mask, lowest, (segments, max_segment), align, boundary, node) = place;
        BufferRequest {
            bytes,
            mask,
            lowest,
            align,
            boundary,
            max_segment,
            segments,
            awake,
            node,
            one_extent,
        }
    })
}

/// Steps of drivers and of the kernel.
fn use_of_memory() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => want().prop_map(Step::Alloc),
        2 => vec(want(), 1..5).prop_map(Step::Many),
        5 => (0_usize..16).prop_map(Step::Drop),
        2 => (0_usize..16, 0_u64..80).prop_map(|(at, half)| Step::Split(at, half * PAGE / 2)),
        1 => Just(Step::Trim),
        1 => (0_u64..100).prop_map(Step::Reclaim),
        1 => (0_u32..2, any::<usize>()).prop_map(|(vcpu, at)| Step::Touch(vcpu, at)),
    ]
}

/// Steps of Xen and of other guests that change the available memory.
fn shortage() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u32..7).prop_map(Step::Fragment),
        (0_u64..200).prop_map(Step::Exhaust),
        Just(Step::Relieve),
        (0_u32..10).prop_map(Step::MaxOrder),
        any::<bool>().prop_map(Step::Deny),
        any::<usize>().prop_map(Step::Hold),
        Just(Step::Unhold),
        any::<bool>().prop_map(Step::NoLists),
    ]
}

fn errno() -> impl Strategy<Value = XenErrno> {
    prop_oneof![
        3 => prop::sample::select(vec![1_u16, 3, 11, 12, 14, 22, 38, 95]),
        1 => 1_u16..4096
    ]
    .prop_map(|raw| XenErrno::from_raw(raw).expect("1 to 4095 are errors"))
}

/// Steps that arm a fault.
fn fault() -> impl Strategy<Value = Step> {
    let at = || prop_oneof![Just(0), 0_u64..80];
    let number = || option::of(prop_oneof![0_u64..100, 0_u64..3000, any::<u64>(), Just(u64::MAX)]);
    let answer =
        prop_oneof![Just(Ok(0)), any::<u32>().prop_map(|n| Ok(n.into())), errno().prop_map(Err)];
    let lie = (any::<bool>(), answer, number(), number())
        .prop_map(|(commit, answer, count, out)| Lie { commit, answer, count, out });
    let inside = prop_oneof![
        at().prop_map(ExchangeFault::InUnreadable),
        (at(), errno()).prop_map(|(at, errno)| ExchangeFault::IommuUnmap(at, errno)),
        at().prop_map(ExchangeFault::OutUnreadable),
        at().prop_map(ExchangeFault::OutUnwritable),
        (at(), errno()).prop_map(|(at, errno)| ExchangeFault::IommuMap(at, errno)),
        Just(ExchangeFault::Dying),
        lie.prop_map(ExchangeFault::Lie),
    ];
    prop_oneof![
        (1_u64..12, errno(), at()).prop_map(|(call, errno, after)| Step::Fault {
            call,
            errno,
            after
        }),
        (1_u64..6, at()).prop_map(|(call, after)| Step::Stop { call, after }),
        inside.prop_map(Step::ExchangeFault),
    ]
}

proptest! {
    #![proptest_config(config())]

    /// All kinds of steps in any order.
    #[test]
    fn every_frame_is_in_one_place(
        setting in setting(),
        steps in vec(prop_oneof![6 => use_of_memory(), 2 => shortage(), 1 => fault()], 1..40),
    ) {
        run_scene(&setting, |scene| {
            for step in &steps {
                scene.apply(step);
                scene.check();
            }
            scene.finish();
        });
    }

    /// Without a fault no frame is quarantined, and no error names a fault.
    #[test]
    fn a_shortage_loses_no_frame(
        setting in setting(),
        steps in vec(prop_oneof![3 => use_of_memory(), 1 => shortage()], 1..40),
    ) {
        run_scene(&setting, |scene| {
            for step in &steps {
                if let StepOutcome::Refused(AllocError::Exchange(error)) = scene.apply(step) {
                    let torn = matches!(
                        error,
                        xen_contig::exchange::ExchangeError::Torn { .. }
                            | xen_contig::exchange::ExchangeError::PageTable { .. }
                            | xen_contig::exchange::ExchangeError::BadExtent { .. }
                            | xen_contig::exchange::ExchangeError::NotPopulated { .. }
                            | xen_contig::exchange::ExchangeError::Flush { .. }
                    );
                    assert!(!torn, "{error}");
                }
                scene.check();
            }
            scene.finish();
            assert_eq!(scene.quarantined(), 0);
            scene.guest().check_whole();
        });
    }

    /// With enough free memory every request without constraints succeeds.
    #[test]
    fn a_request_for_available_memory_succeeds(
        sizes in vec(1_u64..24 * PAGE, 1..8),
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        seed in any::<u64>(),
        retain in prop_oneof![Just(Retain::NOTHING), Just(Retain::default())],
    ) {
        let setting = Setting { seed, retain, ..Setting::default() };
        run_scene(&setting, |scene| {
            for size in &sizes {
                assert_eq!(scene.apply(&Step::Alloc(BufferRequest::bytes(*size))), StepOutcome::Done);
                scene.check();
            }
            for index in &order {
                scene.apply(&Step::Drop(*index));
                scene.check();
            }
            scene.finish();
            assert_eq!(scene.quarantined(), 0);
            let stats = scene.allocator().stats();
            assert_eq!((stats.refusals, stats.idle, stats.lent), (0, 0, 0), "{stats:?}");
        });
    }
}
