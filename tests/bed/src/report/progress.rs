//! Prints what the bed is doing, for how long, and what comes next.

use std::time::{Duration, Instant};

use super::Output;

/// A clock that prints. Plain lines, so that a log file reads as well as a terminal.
#[derive(Debug)]
pub struct ProgressLog {
    output: Output,
    started: Instant,
    spoken: Instant,
    stepped: Instant,
    doing: String,
    next: String,
}

/// After this time without a line, [`ProgressLog::tick`] prints one.
const QUIET: Duration = Duration::from_secs(10);

impl ProgressLog {
    /// Starts the clock.
    pub fn start() -> Self {
        Self::at(Output::direct(), Instant::now())
    }

    /// Returns a printer with the same clock for another output.
    pub fn to(&self, output: Output) -> Self {
        Self::at(output, self.started)
    }

    fn at(output: Output, started: Instant) -> Self {
        let now = Instant::now();
        let (doing, next) = (String::new(), String::new());
        Self { output, started, spoken: now, stepped: now, doing, next }
    }

    /// Prints what begins now and what comes next.
    pub fn step(&mut self, doing: impl Into<String>, next: impl Into<String>) {
        self.doing = doing.into();
        self.next = next.into();
        self.stepped = Instant::now();
        let line = match self.next.as_str() {
            "" => self.doing.clone(),
            next => format!("{} (next: {next})", self.doing),
        };
        self.say(&line);
    }

    /// Records what goes on now within the step, for the next [`tick`](Self::tick).
    pub fn phase(&mut self, doing: &str) {
        if self.doing != doing {
            self.doing = doing.to_owned();
            self.stepped = Instant::now();
        }
    }

    /// Prints a line with the time since the start.
    pub fn say(&mut self, what: &str) {
        self.spoken = Instant::now();
        self.line(&format!("bed [{:>6.1} s] {what}", self.started.elapsed().as_secs_f64()));
    }

    /// Prints a line as it is.
    pub fn line(&self, line: &str) {
        self.output.print(line);
    }

    /// Called often while waiting; prints now and then that the step still goes on.
    pub fn tick(&mut self) {
        if self.spoken.elapsed() >= QUIET && self.output.is_direct() {
            let seconds = self.stepped.elapsed().as_secs();
            let line = format!("… for {seconds} s: {}", self.doing);
            self.say(&line);
        }
    }
}
