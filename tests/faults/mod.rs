//! The faults of the sweeps, and the loop that tries each in every call.

mod count;

use fake_xen::{ExchangeFault, Lie};
use hypercall::XenErrno;

use count::count;

/// A fault that is armed before an operation.
#[derive(Clone, Debug)]
pub enum InjectedFault {
    /// A hypercall does `after` entries and then fails with `errno`.
    Call {
        /// The number of the hypercall, counted from 1.
        call: u64,
        errno: XenErrno,
        after: u64,
    },
    /// A hypercall does `after` extents and returns this count.
    Stop { call: u64, after: u64 },
    /// The next exchange fails inside Xen.
    Inside(ExchangeFault),
}

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

/// Returns the faults inside an exchange, at low and at high indices.
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

/// The outcome of an operation with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Whether the operation met the fault.
    pub met: bool,
    /// The result of the operation, with the error's message.
    pub answer: Result<(), String>,
    /// How many frames are quarantined afterwards.
    pub quarantined: u64,
}

/// The figures of a sweep.
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
    fn add(&mut self, case: &Case) {
        if case.met {
            self.cases += 1;
            self.refused += u64::from(case.answer.is_err());
            self.quarantined += u64::from(case.quarantined > 0);
        }
    }

    /// Prints the figures, and writes the number of cases to a file for `make test`.
    pub fn report(&self, name: &str) {
        let Self { cases, refused, quarantined } = self;
        println!("{name}: {cases} cases, {refused} refused, {quarantined} quarantined");
        count(name, *cases);
    }
}

/// Runs an operation with every fault.
///
/// For each errno it fails call 1, 2, … of the operation, until the operation does not meet the fault.
/// Then it lets the exchange fail inside Xen in every way. `run` runs the operation from the beginning
/// with a fault, and panics if a check fails.
pub fn sweep(name: &str, translated: bool, run: impl Fn(Option<&InjectedFault>) -> Case) -> Tally {
    let run_with = |fault: &InjectedFault| {
        let named = CaseName(name, fault);
        let case = run(Some(fault));
        std::mem::forget(named);
        case
    };
    let undisturbed = run(None);
    assert!(!undisturbed.met && undisturbed.quarantined == 0, "{name}: {undisturbed:?}");
    let mut tally = Tally::default();
    let calls = failures().map(|(errno, after)| (Some(errno), after));
    // Only the operations of a translated guest return how many extents were done.
    let stops = [0, 1, 15].into_iter().filter(|_| translated).map(|after| (None, after));
    for (errno, after) in calls.chain(stops) {
        for call in 1.. {
            let fault = match errno {
                Some(errno) => InjectedFault::Call { call, errno, after },
                None => InjectedFault::Stop { call, after },
            };
            let case = run_with(&fault);
            tally.add(&case);
            if !case.met {
                assert_eq!(case, undisturbed, "{name}: {fault:?} was not met");
                break;
            }
        }
    }
    for fault in inside().into_iter().filter(|_| !translated) {
        let fault = InjectedFault::Inside(fault);
        let case = run_with(&fault);
        tally.add(&case);
        assert!(case.met || case == undisturbed, "{name}: {fault:?} was not met: {case:?}");
    }
    assert_ne!(tally.cases, 0, "{name}: the operation met no fault");
    tally.report(name);
    tally
}

/// Names the case of a test that panics. A panic drops it; a case that passes forgets it.
struct CaseName<'f>(&'f str, &'f InjectedFault);

impl Drop for CaseName<'_> {
    fn drop(&mut self) {
        eprintln!("failed case: {}, {:?}", self.0, self.1);
    }
}
