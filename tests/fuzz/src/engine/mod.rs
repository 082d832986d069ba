//! The fuzzing engine.
//!
//! It takes an input that reached new code, changes it, runs it, and keeps it if it reaches new code
//! too. [`coverage`] says what is new. Without coverage the engine changes the seeds again and again.
//! The same seed makes the same inputs.

pub mod corpus;
pub mod coverage;
mod mutate;
mod random;
mod watch;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use coverage::Coverage;
use random::FuzzRandom;

use crate::targets::Target;

/// The highest number of inputs that [`Run::smallest_inputs`] returns.
const KEPT: usize = 24;

/// A run of one target.
#[derive(Debug)]
pub struct Run {
    target: &'static Target,
    inputs: Vec<Vec<u8>>,
    coverage: Coverage,
    random: FuzzRandom,
    /// How many inputs were run.
    pub executions: u64,
    /// The inputs that made the target panic, minimised.
    pub failures: Vec<(Vec<u8>, InputFailure)>,
}

/// The panic that an input caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFailure {
    /// File and line of the panic.
    pub place: String,
    /// The message of the panic.
    pub message: String,
}

impl fmt::Display for InputFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Installs the panic hook and the watchdog. Call it once per program.
///
/// They write an input to the corpus even if it ends the program.
pub fn start() {
    watch::start();
}

impl Run {
    /// Returns a run of a target, which starts with its seeds and its corpus.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub fn new(target: &'static Target, seed: u64) -> io::Result<Self> {
        let mut run = Self {
            target,
            inputs: Vec::new(),
            coverage: Coverage::default(),
            random: FuzzRandom::new(seed),
            executions: 0,
            failures: Vec::new(),
        };
        let kept = corpus::load(target.name)?.into_iter().map(|(_, input)| input);
        let seeds: Vec<Vec<u8>> = (target.seeds)().into_iter().chain(kept).collect();
        for seed in seeds {
            run.execute(&seed);
            run.inputs.push(seed);
        }
        Ok(run)
    }

    /// Runs inputs for `time`, or until the tenth failure.
    pub fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut input = Vec::new();
        while Instant::now() < end && self.failures.len() < 10 {
            // Half of the time take one of the newest inputs, which were changed the least.
            let newest = self.inputs.len() - self.inputs.len().min(16);
            let at = match self.random.below(2) {
                0 => self.random.below(self.inputs.len()),
                _ => newest + self.random.below(self.inputs.len() - newest),
            };
            let other = self.random.below(self.inputs.len());
            input.clone_from(&self.inputs[at]);
            let Target { words, max_len, .. } = self.target;
            let other = &self.inputs[other];
            mutate::mutate(&mut input, other, words, *max_len, &mut self.random);
            if self.execute(&input) {
                self.inputs.push(input.clone());
            }
        }
    }

    /// Runs an input. Returns true if it reached new code.
    fn execute(&mut self, input: &[u8]) -> bool {
        let result = attempt(self.target, input);
        self.executions += 1;
        let new = self.coverage.absorb();
        let Err(failure) = result else { return new };
        // One failure at each place is enough.
        if !self.failures.iter().any(|(_, other)| other.place == failure.place) {
            let failure = self.minimise(input.to_vec(), failure);
            self.failures.push(failure);
        }
        false
    }

    /// Removes and zeroes the bytes that the failure does not need.
    fn minimise(
        &mut self,
        mut input: Vec<u8>,
        mut failure: InputFailure,
    ) -> (Vec<u8>, InputFailure) {
        let mut size = input.len().next_power_of_two();
        let end = Instant::now() + Duration::from_secs(30);
        while size > 0 {
            let mut at = 0;
            while at < input.len() && Instant::now() < end {
                let upto = (at + size).min(input.len());
                let mut without = input.clone();
                without.drain(at..upto);
                let mut zeroed = input.clone();
                zeroed[at..upto].fill(0);
                let smaller = [without, zeroed].into_iter().find_map(|candidate| {
                    (candidate != input).then_some(())?;
                    let other = attempt(self.target, &candidate).err()?;
                    (other.place == failure.place).then_some((candidate, other))
                });
                match smaller {
                    Some((candidate, other)) => {
                        let shorter = candidate.len() < input.len();
                        (input, failure) = (candidate, other);
                        at += if shorter { 0 } else { size };
                    }
                    None => at += size,
                }
            }
            size /= 2;
        }
        (input, failure)
    }

    /// Returns the smallest inputs that together reach the code that the run reached.
    pub fn smallest_inputs(&self) -> Vec<Vec<u8>> {
        let mut inputs = self.inputs.clone();
        inputs.sort_by_key(Vec::len);
        let mut coverage = Coverage::default();
        inputs.retain(|input| attempt(self.target, input).is_ok() && coverage.absorb());
        // Later inputs add little.
        inputs.truncate(KEPT);
        inputs
    }

    /// Returns how many edges the inputs took.
    pub fn edges(&self) -> usize {
        self.coverage.taken()
    }

    /// Returns how many inputs reached new code, including the seeds.
    pub const fn inputs(&self) -> usize {
        self.inputs.len()
    }
}

/// Runs an input.
///
/// # Errors
/// If the target panics.
pub fn attempt(target: &'static Target, input: &[u8]) -> Result<(), InputFailure> {
    watch::begin(target.name, input);
    Coverage::reset();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    watch::end();
    result.map_err(|panic| {
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast_ref::<&str>().unwrap_or(&"no message").to_string(),
        };
        InputFailure { place: watch::place(), message }
    })
}
