//! What the fault sweeps share: what can go wrong, and the loop that tries it everywhere.

mod count;

use fake_xen::{ExchangeFault, Lie};
use hypercall::XenErrno;

use count::count;

/// What is armed before an operation.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// A call fails behind so many entries.
    Call {
        /// Which, from 1 on.
        call: u64,
        errno: XenErrno,
        after: u64,
    },
    /// A call does so many extents and says so.
    Stop { call: u64, after: u64 },
    /// The next exchange goes wrong on the inside.
    Inside(ExchangeFault),
}

/// What Xen may answer to one call or another, and a number that it has no name for.
fn errnos() -> impl Iterator<Item = XenErrno> {
    [1, 3, 11, 12, 14, 16, 22, 38, 85, 95, 133].into_iter().filter_map(XenErrno::from_raw)
}

/// Each errno of a call that does nothing, and two of one that fails half-way.
fn failures() -> impl Iterator<Item = (XenErrno, u64)> {
    let half_way = [XenErrno::EINVAL, XenErrno::EBUSY];
    let some_done = half_way.into_iter().flat_map(|errno| [(errno, 1), (errno, 300)]);
    errnos().map(|errno| (errno, 0)).chain(some_done)
}

/// Everything that can go wrong inside an exchange and be noticed, at extents and frames near and
/// far.
fn inside() -> Vec<ExchangeFault> {
    let mut faults = vec![ExchangeFault::Dying];
    for at in [0, 1, 15, 31] {
        faults.extend([
            ExchangeFault::InUnreadable(at),
            ExchangeFault::IommuUnmap(at, XenErrno::EIO),
            ExchangeFault::OutUnreadable(at),
            ExchangeFault::OutUnwritable(at),
            ExchangeFault::IommuMap(at, XenErrno::EINVAL),
        ]);
    }
    let beyond = Some(1 << 30);
    for answer in [Ok(0), Ok(u64::MAX), Err(XenErrno::EINVAL), Err(XenErrno::ENOMEM)] {
        for (commit, count, out) in [
            (true, None, None),
            (true, Some(0), None),
            (true, Some(1), None),
            (true, Some(u64::MAX), None),
            (true, None, Some(1)),
            (true, None, beyond),
            (false, Some(0), None),
            (false, Some(16), beyond),
        ] {
            faults.push(ExchangeFault::Lie(Lie { commit, answer, count, out }));
        }
    }
    faults
}

/// What came of an operation with something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Whether the operation met the fault.
    pub met: bool,
    /// What it answered, in words.
    pub answer: Result<(), String>,
    /// Frames that it cost.
    pub quarantined: u64,
}

/// Figures of a sweep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub cases: u64,
    pub refused: u64,
    pub quarantined: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.refused += other.refused;
        self.quarantined += other.quarantined;
    }
}

impl Tally {
    fn note(&mut self, case: &Case) {
        if case.met {
            self.cases += 1;
            self.refused += u64::from(case.answer.is_err());
            self.quarantined += u64::from(case.quarantined > 0);
        }
    }

    /// Prints the figures, and leaves the number of cases for `make test`.
    pub fn tell(&self, name: &str) {
        let Self { cases, refused, quarantined } = self;
        println!("{name}: {cases} cases, {refused} refused, {quarantined} quarantined");
        count(name, *cases);
    }
}

/// Fails call 1, 2, … of an operation with each errno until it goes through without meeting the
/// fault, then has each exchange go wrong on the inside. `play` plays the operation from the
/// beginning with something wrong, and stops the test where anything is not as it should be.
pub fn sweep(name: &str, translated: bool, play: impl Fn(Option<&Wrong>) -> Case) -> Tally {
    let named = |wrong: &Wrong| {
        let named = Named(name, wrong);
        let case = play(Some(wrong));
        std::mem::forget(named);
        case
    };
    let undisturbed = play(None);
    assert!(!undisturbed.met && undisturbed.quarantined == 0, "{name}: {undisturbed:?}");
    let mut tally = Tally::default();
    let calls = failures().map(|(errno, after)| (Some(errno), after));
    // Only the operations that a translated guest makes answer with how many were done.
    let stops = [0, 1, 15].into_iter().filter(|_| translated).map(|after| (None, after));
    for (errno, after) in calls.chain(stops) {
        for call in 1.. {
            let wrong = match errno {
                Some(errno) => Wrong::Call { call, errno, after },
                None => Wrong::Stop { call, after },
            };
            let case = named(&wrong);
            tally.note(&case);
            if !case.met {
                assert_eq!(case, undisturbed, "{name}: {wrong:?} was not met");
                break;
            }
        }
    }
    for fault in inside().into_iter().filter(|_| !translated) {
        let wrong = Wrong::Inside(fault);
        let case = named(&wrong);
        tally.note(&case);
        assert!(case.met || case == undisturbed, "{name}: {wrong:?} was not met: {case:?}");
    }
    assert_ne!(tally.cases, 0, "{name}: no fault was ever met");
    tally.tell(name);
    tally
}

/// Says which case it was if dropped, which it is when a test is being stopped.
struct Named<'w>(&'w str, &'w Wrong);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("the case: {}, {:?}", self.0, self.1);
    }
}
