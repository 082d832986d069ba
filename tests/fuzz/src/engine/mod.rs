//! What makes the input.
//!
//! A loop: take an input that has led somewhere new, change it, try it, and keep it if it leads
//! somewhere new in turn. What is new is known from [`coverage`]; without that the seeds are
//! changed again and again. The same seed makes the same inputs.

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

/// Inputs that a corpus directory may have grown to by [`Run::distil`].
const KEPT: usize = 24;

/// A run of one target.
#[derive(Debug)]
pub struct Run {
    target: &'static Target,
    inputs: Vec<Vec<u8>>,
    coverage: Coverage,
    random: FuzzRandom,
    /// Inputs tried.
    pub executions: u64,
    /// Inputs that did wrong, made small.
    pub finds: Vec<(Vec<u8>, FailedInput)>,
}

/// What an input did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedInput {
    /// File and line of the panic.
    pub place: String,
    /// What it said.
    pub message: String,
}

impl fmt::Display for FailedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Has finds kept even if they end the program. Once per program.
pub fn start() {
    watch::start();
}

impl Run {
    /// A run from the seeds and the corpus of a target.
    ///
    /// # Errors
    /// Where the corpus can't be read.
    pub fn new(target: &'static Target, seed: u64) -> io::Result<Self> {
        let mut run = Self {
            target,
            inputs: Vec::new(),
            coverage: Coverage::default(),
            random: FuzzRandom::new(seed),
            executions: 0,
            finds: Vec::new(),
        };
        let kept = corpus::load(target.name)?.into_iter().map(|(_, input)| input);
        let seeds: Vec<Vec<u8>> = (target.seeds)().into_iter().chain(kept).collect();
        for seed in seeds {
            run.execute(&seed);
            run.inputs.push(seed);
        }
        Ok(run)
    }

    /// Goes on for so long, or up to the tenth find.
    pub fn go(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut input = Vec::new();
        while Instant::now() < end && self.finds.len() < 10 {
            // Half of the time one of the newest: they have been tried the least.
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

    /// Tries an input. Answers whether it led somewhere new.
    fn execute(&mut self, input: &[u8]) -> bool {
        let result = attempt(self.target, input);
        self.executions += 1;
        let new = self.coverage.absorb();
        let Err(wrong) = result else { return new };
        // Of finds at one place, one is enough.
        if !self.finds.iter().any(|(_, other)| other.place == wrong.place) {
            let find = self.minimise(input.to_vec(), wrong);
            self.finds.push(find);
        }
        false
    }

    /// Leaves out and zeroes what is not needed to do wrong.
    fn minimise(&mut self, mut input: Vec<u8>, mut wrong: FailedInput) -> (Vec<u8>, FailedInput) {
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
                    (other.place == wrong.place).then_some((candidate, other))
                });
                match smaller {
                    Some((candidate, other)) => {
                        let shorter = candidate.len() < input.len();
                        (input, wrong) = (candidate, other);
                        at += if shorter { 0 } else { size };
                    }
                    None => at += size,
                }
            }
            size /= 2;
        }
        (input, wrong)
    }

    /// The smallest inputs that lead everywhere that the run has been.
    pub fn distil(&self) -> Vec<Vec<u8>> {
        let mut inputs = self.inputs.clone();
        inputs.sort_by_key(Vec::len);
        let mut coverage = Coverage::default();
        inputs.retain(|input| attempt(self.target, input).is_ok() && coverage.absorb());
        // In later ones there is little that is new.
        inputs.truncate(KEPT);
        inputs
    }

    /// How many edges were taken.
    pub fn edges(&self) -> usize {
        self.coverage.taken()
    }

    /// How many inputs led somewhere new.
    pub const fn inputs(&self) -> usize {
        self.inputs.len()
    }
}

/// Tries an input.
///
/// # Errors
/// If the target panics.
pub fn attempt(target: &'static Target, input: &[u8]) -> Result<(), FailedInput> {
    watch::begin(target.name, input);
    Coverage::reset();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    watch::end();
    result.map_err(|panic| {
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast_ref::<&str>().unwrap_or(&"no message").to_string(),
        };
        FailedInput { place: watch::place(), message }
    })
}
