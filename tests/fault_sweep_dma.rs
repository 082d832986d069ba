//! Faults in every operation of the allocator.
//!
//! Every hypercall fails once with each errno, and every exchange fails inside Xen in every way that
//! the model knows. Afterwards each frame is in one place, P2M and M2P agree, and older buffers are
//! intact. `fault_sweep.rs` is the sweep of the exchange itself.

#![forbid(unsafe_code)]

mod faults;

use fake_xen::POISON;
use faults::{Case, InjectedFault, Tally, sweep};
use fuzz::scene::{BufferRequest, Scene, Setting, Step, StepOutcome, run_scene};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::Retain;
use xen_contig::exchange::Node;

const PAGE: u64 = PAGE_SIZE as u64;

/// An operation, and the steps before it.
struct SweepOperation {
    name: &'static str,
    setting: Setting,
    before: Vec<Step>,
    steps: Vec<Step>,
}

fn operation(name: &'static str, before: Vec<Step>, steps: Vec<Step>) -> SweepOperation {
    SweepOperation { name, setting: Setting::default(), before, steps }
}

fn alloc(pages: u64) -> Step {
    Step::Alloc(BufferRequest::bytes(pages * PAGE))
}

/// Returns a request for three segments of 16 pages and one of two.
fn segments() -> BufferRequest {
    BufferRequest { segments: 4, max_segment: 16 * PAGE, ..BufferRequest::bytes(50 * PAGE) }
}

impl SweepOperation {
    /// Runs it with a reserve that retains all idle memory until a trim.
    fn retaining(self) -> Self {
        let retain = Retain::Bytes { low: u64::MAX, high: u64::MAX };
        Self { setting: Setting { retain, ..self.setting }, ..self }
    }

    /// Runs it in a guest with several first-level tables and an order limit of 1024 frames.
    ///
    /// There a batch of updates can fail half-way.
    fn large(self) -> Self {
        Self { setting: Setting { frames: 2560, max_order: 10, ..self.setting }, ..self }
    }

    /// Runs the operation with a fault.
    fn case(&self, fault: Option<&InjectedFault>) -> Case {
        run_scene(&self.setting, |scene| {
            // Another driver has a buffer.
            assert_eq!(scene.apply(&alloc(8)), StepOutcome::Done);
            for step in &self.before {
                assert_ne!(scene.apply(step), StepOutcome::Nothing, "{}: {step:?}", self.name);
            }
            let armed = fault.map(|fault| match fault.clone() {
                InjectedFault::Call { call, errno, after } => Step::Fault { call, errno, after },
                InjectedFault::Stop { call, after } => Step::Stop { call, after },
                InjectedFault::Inside(fault) => Step::ExchangeFault(fault),
            });
            if let Some(step) = armed {
                assert_eq!(scene.apply(&step), StepOutcome::Done, "{step:?} cannot be detected");
            }
            let outcomes: Vec<StepOutcome> =
                self.steps.iter().map(|step| scene.apply(step)).collect();
            let met = scene.guest().xen().disarm() > 0;
            let quarantined = scene.quarantined();
            check_and_finish(scene);
            let refused = outcomes.iter().any(|outcome| *outcome != StepOutcome::Done);
            let answer = if refused { Err(format!("{outcomes:?}")) } else { Ok(()) };
            Case { met, answer, quarantined }
        })
    }
}

/// Checks every frame, allocates once more and frees all memory.
fn check_and_finish(scene: &mut Scene<'_, '_, '_>) {
    scene.check();
    scene.end_disturbances();
    assert_eq!(scene.apply(&alloc(4)), StepOutcome::Done, "the next allocation succeeds");
    scene.check();
    scene.finish();
}

fn sweep_all(operations: Vec<SweepOperation>) {
    let mut sum = Tally::default();
    let count = operations.len();
    for operation in operations {
        sum += sweep(operation.name, operation.setting.translated, |fault| operation.case(fault));
    }
    let Tally { cases, refused, quarantined } = sum;
    println!("{count} operations: {cases} cases, {refused} refused, {quarantined} quarantined");
    assert!(cases > 0 && refused > 0 && quarantined > 0, "{cases} {refused} {quarantined}");
}

#[test]
fn one_segment() {
    sweep_all(vec![
        operation("one frame out of reach", vec![], vec![Step::Alloc(high_frame())]),
        operation("one segment", vec![], vec![alloc(16)]),
        operation("a surplus", vec![], vec![alloc(17)]),
        operation("more than one table", vec![], vec![alloc(513)]).large(),
    ]);
}

/// Returns a request for a frame in a part of the machine where the guest has none.
fn high_frame() -> BufferRequest {
    BufferRequest { mask: 512 * PAGE - 1, ..BufferRequest::bytes(PAGE) }
}

#[test]
fn several_segments() {
    let steps = || vec![Step::Alloc(segments())];
    sweep_all(vec![
        operation("several segments", vec![], steps()),
        operation("several segments, memory ends midway", vec![Step::Exhaust(40)], steps()),
    ]);
}

/// What the extents have beyond the buffer is numbered like other free frames.
#[test]
fn a_surplus_elsewhere() {
    // 300 pages need 512 frames. About 420 and 200 of them lie in a row.
    let apart = || vec![alloc(200), alloc(8), Step::Drop(1), Step::Reclaim(u64::MAX)];
    let held = || apart().into_iter().chain([Step::Hold(5)]).collect();
    let frames = |frames, operation: SweepOperation| SweepOperation {
        setting: Setting { frames, ..operation.setting },
        ..operation
    };
    // Three pages of each extent of four are one segment.
    let parts = BufferRequest {
        segments: 6,
        max_segment: 3 * PAGE,
        boundary: 14,
        mask: 1024 * PAGE - 1,
        ..BufferRequest::bytes(17 * PAGE)
    };
    let parts = || vec![Step::Alloc(parts.clone())];
    sweep_all(vec![
        frames(660, operation("a surplus elsewhere", apart(), vec![alloc(300)])),
        frames(
            660,
            operation("a surplus elsewhere, a peer holds a frame", held(), vec![alloc(300)]),
        ),
        operation("parts of extents", vec![], parts()),
        operation("parts of extents, memory ends midway", vec![Step::Exhaust(10)], parts()),
    ]);
}

/// A request that fails again and again must not use up low memory.
#[test]
fn memory_that_a_refused_request_got_can_be_trimmed() {
    run_scene(&Setting::default(), |scene| {
        scene.apply(&Step::Exhaust(40));
        let want = BufferRequest { mask: 512 * PAGE - 1, ..segments() };
        for _ in 0..3 {
            let outcome = scene.apply(&Step::Alloc(want.clone()));
            assert!(matches!(outcome, StepOutcome::Refused(_)), "{outcome:?}");
        }
        scene.check();
        scene.end_disturbances();
        assert_eq!(scene.apply(&Step::Trim), StepOutcome::Done);
        let stats = scene.allocator().stats();
        assert_eq!((stats.idle, stats.lent, stats.below_16m), (0, 0, 0), "{stats:?}");
        check_and_finish(scene);
    });
}

#[test]
fn placements_that_xen_cannot_express() {
    // The machine has 3072 frames. 2048 is the highest power of two below the mask.
    let odd = BufferRequest { mask: 2600 * PAGE + 123, ..BufferRequest::bytes(64 * PAGE) };
    let lowest = BufferRequest { lowest: 1000 * PAGE, ..BufferRequest::bytes(16 * PAGE) };
    let nowhere = BufferRequest { lowest: 1 << 40, ..BufferRequest::bytes(16 * PAGE) };
    let node = BufferRequest { node: Node::Exactly(0), ..BufferRequest::bytes(16 * PAGE) };
    let near = BufferRequest { node: Node::Near(0), ..BufferRequest::bytes(16 * PAGE) };
    let fragmented = || vec![Step::Fragment(6)];
    sweep_all(vec![
        operation("an odd mask", vec![], vec![Step::Alloc(odd.clone())]),
        operation("an odd mask, no extent", fragmented(), vec![Step::Alloc(odd)]),
        operation("a lower bound", vec![], vec![Step::Alloc(lowest)]),
        operation("a lower bound above the machine", vec![], vec![Step::Alloc(nowhere)]),
        operation("exactly a node", vec![], vec![Step::Alloc(node)]),
        operation("near a node", vec![], vec![Step::Alloc(near)]),
    ]);
}

#[test]
fn requests_that_xen_refuses() {
    sweep_all(vec![
        operation("denied by a policy", vec![Step::Deny(true)], vec![alloc(16)]),
        operation("a lowered order limit", vec![Step::MaxOrder(2)], vec![alloc(16)]),
        operation("no memory", vec![Step::Exhaust(0)], vec![alloc(16)]),
        operation("a peer maps a frame", vec![Step::Hold(5)], vec![alloc(16)]),
    ]);
}

#[test]
fn one_extent_backs_a_buffer_of_a_translated_guest() {
    let translated = |operation: SweepOperation| SweepOperation {
        setting: Setting { translated: true, ..operation.setting },
        ..operation
    };
    let want = |pages: u64| {
        Step::Alloc(BufferRequest { one_extent: true, ..BufferRequest::bytes(pages * PAGE) })
    };
    sweep_all(
        [
            operation("refill", vec![], vec![want(16)]),
            operation("refill, a surplus", vec![], vec![want(9)]),
            operation("refill, no extent", vec![Step::Fragment(4)], vec![want(16)]),
            operation("refill, a lowered order limit", vec![Step::MaxOrder(2)], vec![want(16)]),
        ]
        .map(translated)
        .into(),
    );
}

#[test]
fn sets() {
    let set = || {
        let wants = [8 * PAGE, 2 * PAGE + 1, 4 * PAGE, 7 * PAGE].map(BufferRequest::bytes);
        vec![Step::Many(wants.to_vec())]
    };
    let mixed = || {
        let wants = [
            segments(),
            high_frame(),
            BufferRequest { lowest: 1000 * PAGE, ..BufferRequest::bytes(2 * PAGE) },
            BufferRequest::bytes(16 * PAGE),
        ];
        vec![Step::Many(wants.to_vec())]
    };
    sweep_all(vec![
        operation("a set", vec![], set()),
        operation("a set, no large extents", vec![Step::Fragment(3)], set()),
        operation("a set, memory ends midway", vec![Step::Exhaust(18)], set()),
        operation("a mixed set", vec![], mixed()),
    ]);
}

#[test]
fn releasing() {
    let all = |count: usize| (0..count).map(|_| Step::Drop(1)).collect::<Vec<_>>();
    let three = || vec![alloc(16), alloc(3), Step::Alloc(segments())];
    let dropped = || three().into_iter().chain(all(3)).collect::<Vec<_>>();
    let then = |steps: Vec<Step>| all(3).into_iter().chain(steps).collect::<Vec<_>>();
    let cut = || [Step::Split(1, 5 * PAGE), Step::Drop(2), Step::Drop(1), Step::Trim].to_vec();
    // The next allocation trims a reserve that retains nothing.
    sweep_all(vec![
        operation("drop, allocate", three(), then(vec![alloc(32)])),
        operation("drop, trim", three(), then(vec![Step::Trim])).retaining(),
        operation("trim", dropped(), vec![Step::Trim]).retaining(),
        operation("trim of two tables", vec![alloc(1024), Step::Drop(1)], vec![Step::Trim]).large(),
        operation("trim, memory ends", vec![alloc(16), Step::Exhaust(7)], then(vec![Step::Trim])),
        operation("split, drop, trim", vec![alloc(16)], cut()),
        operation("drop, allocate, trim", three(), then(vec![alloc(32), Step::Trim])).retaining(),
        operation("trim of lent memory", dropped(), vec![Step::Reclaim(64), Step::Trim])
            .retaining(),
        operation("trim of a frame set aside", vec![Step::Hold(20), alloc(16), Step::Unhold], {
            vec![Step::Trim]
        }),
    ]);
}

/// So no hypercall of them can fail.
#[test]
fn a_drop_and_a_reclaim_make_no_hypercall() {
    run_scene(&Setting::default(), |scene| {
        scene.apply(&alloc(16));
        scene.apply(&Step::Alloc(segments()));
        scene.guest().xen().take_log();
        scene.apply(&Step::Drop(0));
        scene.apply(&Step::Drop(0));
        scene.apply(&Step::Reclaim(u64::MAX));
        assert_eq!(scene.guest().xen().take_log().len(), 0);
        check_and_finish(scene);
    });
}

/// New frames of an exchange can have bytes of another domain ([C56](xen_contig::conformance#C56)).
/// They are zeroed before the kernel gets them.
#[test]
fn the_kernel_gets_no_bytes_of_another_domain() {
    let unreachable =
        Step::Alloc(BufferRequest { lowest: 1 << 40, ..BufferRequest::bytes(16 * PAGE) });
    let low =
        Step::Alloc(BufferRequest { mask: 2048 * PAGE - 1, ..BufferRequest::bytes(17 * PAGE) });
    let mut dirty = Vec::new();
    for steps in [
        vec![alloc(17), Step::Drop(0), Step::Trim],
        vec![low.clone(), Step::Drop(0), Step::Reclaim(u64::MAX)],
        vec![low, Step::Drop(0), Step::Exhaust(0), Step::Trim, Step::Reclaim(u64::MAX)],
        vec![unreachable, Step::Trim],
        vec![Step::Exhaust(40), Step::Alloc(segments()), Step::Reclaim(u64::MAX)],
    ] {
        let frames = run_scene(&Setting::default(), |scene| {
            for step in &steps {
                scene.apply(step);
            }
            scene.check();
            let free = scene.kernel().free();
            free.iter().filter(|pfn| scene.guest().uniform(**pfn) == Some(POISON)).count()
        });
        dirty.push(frames);
    }
    assert_eq!(dirty, [0; 5], "frames with bytes of another domain");
}
