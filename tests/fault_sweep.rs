//! Faults in every operation of the exchange.
//!
//! Every hypercall fails once with each errno. Afterwards every lost frame is counted, and nothing
//! outside the run changed.

#![forbid(unsafe_code)]

#[path = "faults/count.rs"]
mod count;

use fake_xen::{
    Asked, ExchangeFault, Extent, ExtentExchanger, FakeGuest, FakeXen, Fault, GuestBuilder, Lie,
    Logged,
};
use hypercall::XenErrno;
use xen_contig::addr::{AddressBits, Order, Pfn};
use xen_contig::exchange::{Accounts, ExchangeOptions, Fuse, Remaining};
use xen_contig::frames::FrameRun;

const ANYWHERE: AddressBits = AddressBits::UNLIMITED;

/// A run of two whole first-level tables, which are unhooked.
const RUN: (u64, u64) = (2048, 1024);
/// A run of one whole table and parts of two others, whose entries are cleared.
const ODD_RUN: (u64, u64) = (2048 + 3, 1024);

/// A buffer that was allocated before.
const BUFFER: (u64, u64) = (1536, 8);

/// Returns the errnos that Xen uses, and 133, which has no name.
fn errnos() -> impl Iterator<Item = XenErrno> {
    [1, 3, 11, 12, 14, 16, 22, 38, 85, 95, 133].into_iter().filter_map(XenErrno::from_raw)
}

/// Returns each errno with 0 entries done, and two errnos with some entries done.
fn failures() -> impl Iterator<Item = (XenErrno, u64)> {
    let half_way = [XenErrno::EINVAL, XenErrno::EBUSY];
    let some_done = half_way.into_iter().flat_map(|errno| [(errno, 1), (errno, 300)]);
    errnos().map(|errno| (errno, 0)).chain(some_done)
}

struct SweepScene {
    guest: FakeGuest,
    accounts: Accounts,
    setting: Setting,
}

/// The run to exchange, and whether hypercalls are combined.
#[derive(Clone, Copy)]
struct Setting {
    run: (u64, u64),
    fuse: Fuse,
}

impl Setting {
    const WHOLE_TABLES: Self = Self { run: RUN, fuse: Fuse::On };
    const ODD: Self = Self { run: ODD_RUN, fuse: Fuse::On };
    const ODD_ONE_BY_ONE: Self = Self { run: ODD_RUN, fuse: Fuse::Off };
}

/// The outcome of an operation for its run.
enum RunOutcome {
    /// The operation succeeded.
    Done,
    /// The operation failed, and returned the whole run.
    Returned,
    /// The operation failed, and some frames of the run are quarantined.
    Quarantined { lost: u64 },
}

impl SweepScene {
    fn new(setting: Setting) -> Self {
        let guest = GuestBuilder::new(4096).machine_frames(8192).max_order(10).build();
        let scene = Self { guest, accounts: Accounts::new(), setting };
        scene.guest.paint();
        let buffer = scene.acquire(scene.guest.run(BUFFER.0, BUFFER.1)).ok().unwrap();
        buffer.run().iter().for_each(|pfn| scene.guest.fill(pfn, 0xb0ff));
        scene
    }

    fn acquire(&self, run: FrameRun) -> Result<Extent, Remaining<'_>> {
        let exchanger = self.exchanger();
        let mut list = vec![0; run.frames() as usize];
        exchanger.acquire(run, ANYWHERE, &mut list).map_err(|failure| failure.remaining)
    }

    fn release(&self, extent: Extent) -> Result<FrameRun, Remaining<'_>> {
        let exchanger = self.exchanger();
        let mut list = vec![0; 2 * extent.run().frames() as usize];
        exchanger.release(extent, &mut list).map_err(|failure| failure.remaining)
    }

    fn exchanger(&self) -> ExtentExchanger<'_, FakeXen, FakeGuest> {
        let options = ExchangeOptions { fuse: self.setting.fuse, ..ExchangeOptions::default() };
        self.guest.exchanger(&self.accounts, Order::MAX).with_options(options)
    }

    fn run(&self) -> FrameRun {
        let (first, frames) = self.setting.run;
        self.guest.run(first, frames)
    }
}

fn outcome<T>(scene: &SweepScene, result: Result<T, Remaining<'_>>) -> RunOutcome {
    let whole = scene.setting.run;
    match result.map_err(Remaining::whole) {
        Ok(_) => RunOutcome::Done,
        Err(Ok(run)) => {
            assert_eq!((run.first().number(), run.frames()), whole, "the whole run is returned");
            RunOutcome::Returned
        }
        Err(Err(remaining)) => {
            let lost = remaining.lost();
            let frames: u64 = remaining.into_iter().map(|run| run.frames()).sum();
            assert_eq!(frames + lost, whole.1, "each frame is returned or lost");
            RunOutcome::Quarantined { lost }
        }
    }
}

/// Fails call 1, 2, … of `operation` until the operation does not meet the fault.
fn sweep<S>(
    name: &str,
    setting: Setting,
    prepare: impl Fn(&SweepScene) -> S,
    operation: impl Fn(&SweepScene, S) -> RunOutcome,
) {
    let lost = sweep_by(name, setting, 1, prepare, operation);
    assert_eq!(lost, 0, "{name}: frames are lost although Xen refused one call only");
}

/// Does the same with `times` refusals in a row. Returns the number of cases with lost frames.
fn sweep_by<S>(
    name: &str,
    setting: Setting,
    times: u64,
    prepare: impl Fn(&SweepScene) -> S,
    operation: impl Fn(&SweepScene, S) -> RunOutcome,
) -> u64 {
    let (mut cases, mut quarantined) = (0, 0);
    for (errno, after) in failures() {
        for call in 1.. {
            let scene = SweepScene::new(setting);
            let prepared = prepare(&scene);
            let before = scene.guest.snapshot();
            scene.guest.xen().arm(Fault::refuse(call, errno).after(after).times(times));
            let outcome = operation(&scene, prepared);
            let what = format!("{name}: call {call} answers {errno} after {after}");
            if scene.guest.xen().disarm() == 0 {
                break;
            }
            // A call with fewer entries than `after` succeeds.
            cases += u64::from(!matches!(outcome, RunOutcome::Done));
            quarantined += u64::from(matches!(outcome, RunOutcome::Quarantined { .. }));
            check(&scene, &before, &outcome, &what);
        }
    }
    println!("{name}: {cases} cases, {quarantined} of them quarantined");
    count::count(name, cases);
    assert_ne!(cases, 0, "{name}: the operation met no fault");
    quarantined
}

/// Checks every frame, and that the next operation succeeds.
fn check(scene: &SweepScene, before: &fake_xen::Snapshot, outcome: &RunOutcome, what: &str) {
    let SweepScene { guest, accounts, setting: Setting { run: whole, .. } } = scene;
    let after = guest.snapshot();
    let in_run = |pfn: &Pfn| (whole.0..whole.0 + whole.1).contains(&pfn.number());
    let census = guest.check();
    let changed = [after.moved(before), after.rewritten(before)].concat();
    let is_lost = matches!(outcome, RunOutcome::Quarantined { .. });
    // If Xen refuses to hook a table in again, the table is lost with the frames that it maps.
    let is_table = |pfn: &Pfn| is_lost && pfn.number() < scene.guest.frames() / 512;
    for (first, count) in changed {
        for pfn in (first.number()..first.number() + count).map(Pfn::new) {
            assert!(in_run(&pfn) || is_table(&pfn), "{what}: {pfn} changed");
        }
    }
    match outcome {
        RunOutcome::Done | RunOutcome::Returned => {
            assert_eq!(accounts.quarantined(), 0, "{what}");
            guest.check_whole();
        }
        RunOutcome::Quarantined { lost } => {
            assert_eq!(accounts.quarantined(), *lost, "{what}: every lost frame is counted");
            let unmapped = census.holes.len() + census.unmapped.len();
            assert_eq!(unmapped as u64, accounts.quarantined(), "{what}: the rest is mapped");
            assert!(census.holes.iter().chain(&census.unmapped).all(in_run), "{what}");
            // For each hole the guest owns one machine frame that no guest frame names.
            assert_eq!(census.orphans.len(), census.holes.len(), "{what}");
        }
    }
    if matches!(outcome, RunOutcome::Returned) {
        assert_eq!(after.moved(before), [], "{what}: the machine frames are as before");
    }
    for pfn in (BUFFER.0..BUFFER.0 + BUFFER.1).map(Pfn::new) {
        assert_eq!(guest.uniform(pfn), Some(0xb0ff), "{what}: the buffer in use is intact");
    }
    assert!(scene.acquire(guest.run(3500, 64)).is_ok(), "{what}: the next exchange succeeds");
}

#[test]
fn acquire() {
    sweep("acquire", Setting::WHOLE_TABLES, SweepScene::run, |scene, run| {
        outcome(scene, scene.acquire(run))
    });
}

#[test]
fn acquire_entry_by_entry() {
    for (name, setting) in
        [("odd acquire", Setting::ODD), ("acquire one by one", Setting::ODD_ONE_BY_ONE)]
    {
        sweep(name, setting, SweepScene::run, |scene, run| outcome(scene, scene.acquire(run)));
    }
}

/// The second refusal hits the recovery from the first one.
#[test]
fn acquire_with_several_refusals_in_a_row() {
    let mut lost = 0;
    for (name, setting) in [("whole", Setting::WHOLE_TABLES), ("odd", Setting::ODD)] {
        for times in [2, 3] {
            let name = format!("{name}, {times} in a row");
            lost += sweep_by(&name, setting, times, SweepScene::run, |scene, run| {
                outcome(scene, scene.acquire(run))
            });
        }
    }
    assert!(lost > 0, "a repeated refusal loses frames");
}

#[test]
fn acquire_that_xen_refuses() {
    let aliased = |scene: &SweepScene| {
        scene.guest.alias(0, Pfn::new(RUN.0 + 700));
        scene.run()
    };
    sweep("refused acquire", Setting::WHOLE_TABLES, aliased, |scene, run| {
        let outcome = outcome(scene, scene.acquire(run));
        scene.guest.unalias(0);
        outcome
    });
}

#[test]
fn release() {
    let acquired = |scene: &SweepScene| scene.acquire(scene.run()).ok().unwrap();
    for (name, setting) in [("release", Setting::WHOLE_TABLES), ("odd release", Setting::ODD)] {
        sweep(name, setting, acquired, |scene, extent| outcome(scene, scene.release(extent)));
    }
}

/// How Xen serves a refill of a translated guest.
#[derive(Clone, Copy, Debug)]
struct Refill {
    /// Whether Xen has no extent.
    fragmented: bool,
    /// Whether Xen exchanges memory of translated guests.
    permitted: bool,
    /// Whether the guest knows this from an earlier refill.
    tried: bool,
}

#[test]
fn refill() {
    let mut cases = 0;
    let faults = |call| {
        let stops = [0, 1, 63].map(move |after| Fault::stop(call).after(after));
        stops.into_iter().chain(errnos().map(move |errno| Fault::refuse(call, errno)))
    };
    for fragmented in [false, true] {
        for permitted in [false, true] {
            let refill = Refill { fragmented, permitted, tried: false };
            for call in 1.. {
                let met: u64 = faults(call)
                    .map(|fault| u64::from(refill.with(format!("{fault:?}"), |xen| xen.arm(fault))))
                    .sum();
                if met == 0 {
                    break;
                }
                cases += met;
            }
        }
    }
    println!("refill: {cases} cases");
    count::count("refill", cases);
    assert_ne!(cases, 0, "the refill met no fault");
}

/// The exchange of a translated guest fails inside Xen in every way that the model knows.
#[test]
fn refill_by_an_exchange_that_fails_inside() {
    use ExchangeFault as F;
    let lie = |commit, answer| F::Lie(Lie { commit, answer, count: Some(0), out: None });
    let inside = || {
        // `EOPNOTSUPP` comes before Xen takes a frame, so it cannot come later
        // ([C26](xen_contig::conformance#C26)).
        let later = errnos().filter(|errno| *errno != XenErrno::EOPNOTSUPP);
        let by_errno = later.flat_map(|errno| {
            let lies = [false, true].map(|commit| lie(commit, Err(errno)));
            [F::IommuUnmap(0, errno), F::IommuMap(0, errno)].into_iter().chain(lies)
        });
        let others = [F::InUnreadable(0), F::OutUnreadable(0), F::Hole(0), F::Dying];
        by_errno.chain(others).chain([lie(false, Ok(0)), lie(true, Ok(0))])
    };
    let mut cases = 0;
    for tried in [false, true] {
        let refill = Refill { fragmented: false, permitted: true, tried };
        for fault in inside() {
            let what = format!("{fault:?}");
            assert!(refill.with(what, |xen| xen.arm_exchange(fault)), "the refill met no fault");
            cases += 1;
        }
    }
    println!("refill by an exchange that fails inside: {cases} cases");
    count::count("refill by an exchange that fails inside", cases);
}

impl Refill {
    /// Refills with a fault, and checks every frame. Returns true if the refill met the fault.
    fn with(self, what: String, arm: impl FnOnce(&FakeXen)) -> bool {
        let guest = GuestBuilder::new(1024).translated().build();
        guest.permit_translated_exchange(self.permitted);
        guest.paint();
        let accounts = Accounts::new();
        let refiller = guest.refiller(&accounts, Order::MAX);
        if self.tried {
            assert!(refiller.refill(guest.run(512, 64), ANYWHERE, &mut [0; 64]).is_ok());
        }
        if self.fragmented {
            guest.fragment(Order::new(6).unwrap());
        }
        let before = guest.snapshot();
        guest.xen().take_log();
        arm(guest.xen());
        let mut list = [0; 64];
        let result = refiller.refill(guest.run(512, 64), ANYWHERE, &mut list);
        let met = guest.xen().disarm() > 0;

        let what = format!("{what}, {self:?}: {result:?}");
        let census = guest.check();
        for (first, count) in guest.snapshot().rewritten(&before) {
            let inside = first.number() >= 512 && first.number() + count <= 576;
            assert!(inside, "{what}: {first} changed");
        }
        let remaining: Vec<Pfn> = match result {
            Ok(run) => run.iter().collect(),
            Err(failure) => failure.remaining.into_iter().flat_map(|run| run.iter()).collect(),
        };
        let run = (512..576).map(Pfn::new);
        let lost: Vec<Pfn> = run.filter(|pfn| !remaining.contains(pfn)).collect();
        assert_eq!(accounts.quarantined(), lost.len() as u64, "{what}");
        // A frame is lost if it is a hole, or if Xen does not report whether it is one.
        let log = guest.xen().take_log();
        let refused = |call: &&Logged| call.asked == Asked::Other("hvm_op") && call.answer.is_err();
        let unknown = log.iter().filter(refused).count();
        assert!(census.holes.iter().all(|pfn| lost.contains(pfn)), "{what}");
        assert_eq!(lost.len(), census.holes.len() + unknown, "{what}: nothing else is lost");
        assert!(met || lost.is_empty(), "{what}");
        let zeroed = |pfn: &Pfn| guest.uniform(*pfn) == Some(0);
        assert!(remaining.iter().all(zeroed), "{what}: zeroed");
        assert_eq!(guest.given_up_dirty(), 0, "{what}");
        // The next refill succeeds, if each frame that Xen counts has a place in the guest.
        guest.relieve();
        guest.set_max_pages(1024 + census.orphans.len() as u64);
        let next = refiller.refill(guest.run(768, 64), ANYWHERE, &mut list);
        assert!(next.is_ok(), "{what}: the next refill fails: {next:?}");
        met
    }
}
