//! Runs the parts of a suite side by side, at most two machines at a time.

use std::panic;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::Result;
use crate::report::{Output, Reporter};

/// What a part uses while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Processors that it keeps busy.
    processors: u32,
    /// Memory of its machine.
    mib: u32,
    /// Machines with a Linux dom0.
    linux: u32,
}

/// What all parts that run at the same time may use together. Linux and its domains often run at the
/// same time, so two such machines would keep more than two processors busy.
const ALL: Need = Need { processors: 2, mib: 8192, linux: 1 };

impl Need {
    /// Returns the need of a machine with `mib` MiB whose guest has `vcpus` vCPUs.
    ///
    /// A machine whose guest has several vCPUs runs alone. Each vCPU keeps a thread of QEMU busy, and
    /// vCPUs that wait for each other are slow when these threads share a processor.
    pub fn machine(vcpus: u32, mib: u32) -> Self {
        Self { processors: if vcpus > 1 { ALL.processors } else { 1 }, mib, linux: 0 }
    }

    /// Returns the same need of a machine with a Linux dom0.
    pub fn with_linux(self) -> Self {
        Self { linux: 1, ..self }
    }

    /// Returns the need of a part that must run alone.
    pub fn alone() -> Self {
        ALL
    }

    /// Returns the need, cut to what `all` has.
    fn cut_to(self, all: Self) -> Self {
        Self {
            processors: self.processors.min(all.processors),
            mib: self.mib.min(all.mib),
            linux: self.linux.min(all.linux),
        }
    }

    fn fits(self, free: Self) -> bool {
        self.processors <= free.processors && self.mib <= free.mib && self.linux <= free.linux
    }

    fn plus(self, other: Self) -> Self {
        Self {
            processors: self.processors + other.processors,
            mib: self.mib + other.mib,
            linux: self.linux + other.linux,
        }
    }

    /// Returns what is free after `other`, which fits, was taken.
    fn minus(self, other: Self) -> Self {
        Self {
            processors: self.processors - other.processors,
            mib: self.mib - other.mib,
            linux: self.linux - other.linux,
        }
    }
}

/// A part of a suite.
pub struct SuitePart<'p> {
    need: Need,
    run: Box<Run<'p>>,
}

type Run<'p> = dyn FnOnce(&mut Reporter) -> Result<()> + Send + 'p;

impl<'p> SuitePart<'p> {
    /// Makes a part from what it needs and what it does.
    pub fn new(need: Need, run: impl FnOnce(&mut Reporter) -> Result<()> + Send + 'p) -> Self {
        Self { need, run: Box::new(run) }
    }
}

/// Runs the parts and reports what each found, in the order of the parts.
///
/// Whenever there is room, the first part that fits starts. After an error no further part starts. The
/// error is reported after what its part found, and the findings of all other parts stay.
pub fn run(parts: Vec<SuitePart<'_>>, reporter: &mut Reporter) {
    let processors = thread::available_parallelism().map_or(1, |number| number.get() as u32);
    run_in(Need { processors: processors.min(ALL.processors), ..ALL }, parts, reporter);
}

fn run_in(all: Need, parts: Vec<SuitePart<'_>>, reporter: &mut Reporter) {
    let room = Room::new(all);
    let outputs = Output::of_parts(parts.len());
    let findings = thread::scope(|scope| {
        let mut threads: Vec<_> = parts.iter().map(|_| None).collect();
        let mut pending: Vec<_> = parts.into_iter().zip(outputs).enumerate().collect();
        while !pending.is_empty() {
            let needs: Vec<_> = pending.iter().map(|(_, (part, _))| part.need).collect();
            let Some((index, share)) = room.take_first_of(&needs) else { break };
            let (number, (part, output)) = pending.remove(index);
            let mut reporter = reporter.part(output.clone());
            threads[number] = Some(scope.spawn(move || {
                let _end = output.end_on_drop();
                if let Err(error) = (part.run)(&mut reporter) {
                    reporter.error("a part of the suite could not run", &error.to_string());
                    share.room.fail();
                }
                drop(share);
                reporter.into_findings()
            }));
        }
        let findings = threads.into_iter().flatten().map(|thread| match thread.join() {
            Ok(findings) => findings,
            Err(panicked) => panic::resume_unwind(panicked),
        });
        findings.collect::<Vec<_>>()
    });
    findings.into_iter().for_each(|part| reporter.add(part));
}

/// Processors and memory for parts.
struct Room {
    all: Need,
    state: Mutex<Occupancy>,
    changed: Condvar,
}

struct Occupancy {
    free: Need,
    failed: bool,
}

/// What a running part uses; returned to the room on drop.
struct Share<'r> {
    room: &'r Room,
    used: Need,
}

impl Room {
    fn new(all: Need) -> Self {
        let state = Mutex::new(Occupancy { free: all, failed: false });
        Self { all, state, changed: Condvar::new() }
    }

    /// Waits until one of `needs` is free, and takes the first one that is. A need that is larger than
    /// the room takes all of it. Returns `None` if a part has failed.
    fn take_first_of(&self, needs: &[Need]) -> Option<(usize, Share<'_>)> {
        let needs: Vec<_> = needs.iter().map(|need| need.cut_to(self.all)).collect();
        let first = |free| needs.iter().position(|need| need.fits(free));
        let is_full = |state: &mut Occupancy| !state.failed && first(state.free).is_none();
        let waited = self.changed.wait_while(self.lock(), is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return None;
        }
        let index = first(state.free)?;
        let used = needs[index];
        state.free = state.free.minus(used);
        Some((index, Share { room: self, used }))
    }

    fn fail(&self) {
        self.lock().failed = true;
    }

    /// Locks the state. No code can panic between its changes, so it is whole after a panic, too.
    fn lock(&self) -> MutexGuard<'_, Occupancy> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.free = state.free.plus(self.used);
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::Error;
    use crate::guest::GuestVerdict;
    use crate::report::Findings;

    const ROOM: Need = Need { processors: 2, mib: 100, linux: 1 };

    fn one(mib: u32) -> Need {
        Need { processors: 1, mib, linux: 0 }
    }

    fn run_all(parts: Vec<SuitePart<'_>>) -> Findings {
        let mut reporter = Reporter::start();
        run_in(ROOM, parts, &mut reporter);
        reporter.into_findings()
    }

    #[test]
    fn two_small_parts_run_at_the_same_time() {
        let both = Barrier::new(2);
        let part = || {
            SuitePart::new(one(50), |reporter| {
                both.wait();
                reporter.note("both run", Ok(()));
                Ok(())
            })
        };
        let findings = run_all(vec![part(), part()]);
        assert_eq!(findings.counts().failed, 0);
        assert_eq!(findings.counts().passed, 2);
    }

    #[test]
    fn parts_that_need_more_than_is_free_run_alone() {
        for need in [Need::machine(2, 1), one(51), one(1000), one(1).with_linux()] {
            let (running, most) = (AtomicU32::new(0), AtomicU32::new(0));
            let part = || {
                SuitePart::new(need, |_| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                })
            };
            let findings = run_all((0..20).map(|_| part()).collect());
            assert_eq!(findings.counts().failed, 0);
            assert_eq!(most.into_inner(), 1, "{need:?}");
        }
    }

    #[test]
    fn a_later_part_starts_if_an_earlier_one_does_not_fit() {
        let together = Barrier::new(2);
        let linux = |waits| {
            let together = &together;
            SuitePart::new(one(1).with_linux(), move |reporter| {
                if waits {
                    together.wait();
                }
                reporter.note("linux", Ok(()));
                Ok(())
            })
        };
        let small = SuitePart::new(one(1), |_| {
            together.wait();
            Ok(())
        });
        let findings = run_all(vec![linux(true), linux(false), small]);
        assert_eq!(findings.counts().failed, 0);
        assert_eq!(findings.counts().passed, 2);
    }

    #[test]
    fn after_an_error_no_further_part_starts() {
        let fail = SuitePart::new(Need::alone(), |_| Err(Error::QemuStart("why".to_owned())));
        let later = SuitePart::new(one(1), |_| unreachable!("the part before it failed"));
        let findings = run_all(vec![fail, later]);
        assert_eq!(findings.verdict(), GuestVerdict::Error);
        let lines = findings.summary();
        assert!(lines[0].starts_with("ERROR ") && lines[0].contains("why"), "{lines:?}");
    }
}
