//! Every hypercall of every operation of the allocator fails once, with each errno that it may give,
//! and every exchange goes wrong on the inside in every way that the model knows: each frame is
//! accounted for afterwards, all books agree, and buffers that were handed out before are intact.
//!
//! The exchange itself has a sweep of its own in `fault_sweep.rs`.

#![forbid(unsafe_code)]

mod faults;

use fake_xen::POISON;
use faults::{Case, Tally, Wrong, sweep};
use fuzz::scene::{Scene, Setting, Step, StepOutcome, Want, play};
use xen_contig::addr::PAGE_SIZE;
use xen_contig::dma::GiveBack;
use xen_contig::exchange::{Node, OnRefusal};

const PAGE: u64 = PAGE_SIZE as u64;

/// An operation, and what comes before it.
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
    Step::Alloc(Want::bytes(pages * PAGE))
}

/// Three segments of 16 pages and one of a few.
fn segments(on_refusal: OnRefusal) -> Want {
    Want { segments: 4, max_segment: 16 * PAGE, on_refusal, ..Want::bytes(50 * PAGE) }
}

impl SweepOperation {
    fn with(self, policy: GiveBack) -> Self {
        Self { setting: Setting { policy, ..self.setting }, ..self }
    }

    /// In a guest and with an order limit that hold two first-level tables' worth, so that batches
    /// can fail half-way.
    fn large(self) -> Self {
        Self { setting: Setting { frames: 2560, max_order: 10, ..self.setting }, ..self }
    }

    /// Plays the operation with something wrong.
    fn case(&self, wrong: Option<&Wrong>) -> Case {
        play(&self.setting, |scene| {
            // A buffer of somebody else's.
            assert_eq!(scene.apply(&alloc(8)), StepOutcome::Done);
            for step in &self.before {
                assert_ne!(scene.apply(step), StepOutcome::Nothing, "{}: {step:?}", self.name);
            }
            let armed = wrong.map(|wrong| match wrong.clone() {
                Wrong::Call { call, errno, after } => Step::Fault { call, errno, after },
                Wrong::Stop { call, after } => Step::Stop { call, after },
                Wrong::Inside(fault) => Step::ExchangeFault(fault),
            });
            if let Some(step) = armed {
                assert_eq!(scene.apply(&step), StepOutcome::Done, "{step:?} can't be found out");
            }
            let outcomes: Vec<StepOutcome> =
                self.steps.iter().map(|step| scene.apply(step)).collect();
            let met = scene.guest().xen().disarm() > 0;
            let quarantined = scene.quarantined();
            judge(scene);
            let refused = outcomes.iter().any(|outcome| *outcome != StepOutcome::Done);
            let answer = if refused { Err(format!("{outcomes:?}")) } else { Ok(()) };
            Case { met, answer, quarantined }
        })
    }
}

/// Looks at every frame, wants the next buffer to be served, and then all to be given back.
fn judge(scene: &mut Scene<'_, '_>) {
    scene.check();
    scene.calm();
    assert_eq!(scene.apply(&alloc(4)), StepOutcome::Done, "then another");
    scene.check();
    scene.finish();
}

fn sweep_all(operations: Vec<SweepOperation>) {
    let mut sum = Tally::default();
    let count = operations.len();
    for operation in operations {
        sum += sweep(operation.name, operation.setting.translated, |wrong| operation.case(wrong));
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
        operation("two tables' worth", vec![], vec![alloc(513)]).large(),
    ]);
}

/// A frame in the lower half of the machine, where the guest has none.
fn high_frame() -> Want {
    Want { mask: 512 * PAGE - 1, ..Want::bytes(PAGE) }
}

#[test]
fn several_segments() {
    for on_refusal in [OnRefusal::Undo, OnRefusal::Return] {
        let steps = || vec![Step::Alloc(segments(on_refusal))];
        let short = vec![Step::Exhaust(40)];
        sweep_all(vec![
            operation("several segments", vec![], steps()),
            operation("several segments, memory ends midway", short, steps()),
        ]);
    }
}

/// Undoing is more than forgetting: low memory goes back, or a request that fails again and again
/// would use it up.
#[test]
fn what_is_undone_is_not_low_any_more() {
    let low_frames = |scene: &Scene<'_, '_>| {
        let guest = scene.guest();
        guest.usable().filter_map(|pfn| guest.mfn(pfn)).filter(|mfn| mfn.number() < 512).count()
    };
    play(&Setting::default(), |scene| {
        // In the third segment of each run that can be taken.
        let free = scene.kernel().free();
        let held = (0..free.len()).filter(|index| free[*index].number() % 64 == 40);
        held.for_each(|index| _ = scene.apply(&Step::Hold(index)));
        assert_eq!(low_frames(scene), 0);
        let want = Want { mask: 512 * PAGE - 1, ..segments(OnRefusal::Undo) };
        let outcome = scene.apply(&Step::Alloc(want));
        assert!(matches!(outcome, StepOutcome::Refused(_)), "{outcome:?}");
        assert_eq!(low_frames(scene), 0);
        judge(scene);
    });
}

#[test]
fn places_that_xen_can_not_be_told() {
    // The machine's 3072 frames begin to be served at 2048; below, 2048 is where the bits end.
    let odd = Want { mask: 2600 * PAGE + 123, ..Want::bytes(64 * PAGE) };
    let lowest = Want { lowest: 1000 * PAGE, ..Want::bytes(16 * PAGE) };
    let nowhere = Want { lowest: 1 << 40, ..Want::bytes(16 * PAGE) };
    let node = Want { node: Node::Exactly(0), ..Want::bytes(16 * PAGE) };
    let near = Want { node: Node::Near(0), ..Want::bytes(16 * PAGE) };
    let fragmented = || vec![Step::Fragment(6)];
    sweep_all(vec![
        operation("an odd mask", vec![], vec![Step::Alloc(odd.clone())]),
        operation("an odd mask, nothing there", fragmented(), vec![Step::Alloc(odd)]),
        operation("a lower bound", vec![], vec![Step::Alloc(lowest)]),
        operation("a lower bound beyond all", vec![], vec![Step::Alloc(nowhere)]),
        operation("exactly a node", vec![], vec![Step::Alloc(node)]),
        operation("near a node", vec![], vec![Step::Alloc(near)]),
    ]);
}

#[test]
fn what_xen_refuses_anyway() {
    sweep_all(vec![
        operation("denied by a policy", vec![Step::Deny(true)], vec![alloc(16)]),
        operation("a limit that fell", vec![Step::MaxOrder(2)], vec![alloc(16)]),
        operation("no memory", vec![Step::Exhaust(0)], vec![alloc(16)]),
        operation("a peer holds a frame", vec![Step::Hold(5)], vec![alloc(16)]),
    ]);
}

#[test]
fn one_extent_beneath_a_translated_guest() {
    let translated = |operation: SweepOperation| SweepOperation {
        setting: Setting { translated: true, ..operation.setting },
        ..operation
    };
    let want = |pages: u64| Step::Alloc(Want { one_extent: true, ..Want::bytes(pages * PAGE) });
    sweep_all(
        [
            operation("refill", vec![], vec![want(16)]),
            operation("refill, a surplus", vec![], vec![want(9)]),
            operation("refill, no extent", vec![Step::Fragment(4)], vec![want(16)]),
            operation("refill, a limit that fell", vec![Step::MaxOrder(2)], vec![want(16)]),
        ]
        .map(translated)
        .into(),
    );
}

#[test]
fn sets() {
    let set = || {
        let wants = [8 * PAGE, 2 * PAGE + 1, 4 * PAGE, 7 * PAGE].map(Want::bytes);
        vec![Step::Many(wants.to_vec())]
    };
    let mixed = || {
        let wants = [
            segments(OnRefusal::Undo),
            high_frame(),
            Want { lowest: 1000 * PAGE, ..Want::bytes(2 * PAGE) },
            Want::bytes(16 * PAGE),
        ];
        vec![Step::Many(wants.to_vec())]
    };
    sweep_all(vec![
        operation("a set", vec![], set()),
        operation("a set, large ones not to be had", vec![Step::Fragment(3)], set()),
        operation("a set, memory ends midway", vec![Step::Exhaust(18)], set()),
        operation("a mixed set", vec![], mixed()),
    ]);
}

#[test]
fn giving_back() {
    let all = |count: usize| (0..count).map(|_| Step::Drop(1)).collect::<Vec<_>>();
    let three = || vec![alloc(16), alloc(3), Step::Alloc(segments(OnRefusal::Undo))];
    let dropped = || three().into_iter().chain(all(3)).collect::<Vec<_>>();
    // As many wait as can; the next becomes ordinary memory.
    let crowd = (0..66).map(|_| Step::Alloc(high_frame())).chain([Step::Exhaust(0)]);
    let crowd = crowd.chain(all(64)).collect();
    let cut = || [Step::Split(1, 5 * PAGE), Step::Drop(2), Step::Drop(1)].to_vec();
    let large = || vec![alloc(1024)];
    sweep_all(vec![
        operation("drop", three(), all(3)),
        operation("drop of two steps", large(), vec![Step::Drop(1)]).large(),
        operation("drop, memory ends", vec![alloc(16), Step::Exhaust(7)], vec![Step::Drop(1)]),
        operation("split and drop", vec![alloc(16)], cut()),
        operation("give back what waits", dropped(), vec![Step::GiveBack]).with(GiveBack::Later),
        operation("drop where too many wait", crowd, all(1)),
        operation("drop, allocate, give back", three(), {
            all(3).into_iter().chain([alloc(32), Step::GiveBack]).collect()
        })
        .with(GiveBack::Later),
        operation("drop, allocate", three(), all(3).into_iter().chain([alloc(32)]).collect())
            .with(GiveBack::Keep),
    ]);
}

/// A surplus is zeroed before it becomes ordinary memory, since it may hold what another domain left
/// there ([C56](xen_contig::conformance#C56)). So may all that an exchange brings.
#[test]
fn what_becomes_ordinary_memory_holds_nothing_of_another_domains() {
    let unreachable = Step::Alloc(Want { lowest: 1 << 40, ..Want::bytes(16 * PAGE) });
    let undone = [Step::Exhaust(40), Step::Alloc(segments(OnRefusal::Undo))];
    let mut dirty = Vec::new();
    for (policy, steps) in [
        (GiveBack::AtOnce, vec![alloc(16), Step::Drop(0)]),
        (GiveBack::Later, vec![alloc(16), Step::Drop(0), Step::GiveBack]),
        (GiveBack::Keep, vec![unreachable]),
        (GiveBack::Keep, undone.to_vec()),
    ] {
        let frames = play(&Setting { policy, ..Setting::default() }, |scene| {
            for step in &steps {
                scene.apply(step);
            }
            let free = scene.kernel().free();
            free.iter().filter(|pfn| scene.guest().uniform(**pfn) == Some(POISON)).count()
        });
        dirty.push(frames);
    }
    assert_eq!(dirty, [0; 4], "frames with another domain's bytes");
}
