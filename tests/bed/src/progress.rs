//! Prints what the bed is doing, for how long, and what comes next.

use std::time::{Duration, Instant};

/// A clock that speaks. Plain lines, so that a log file reads as well as a terminal.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    spoken: Instant,
    stepped: Instant,
    doing: String,
    next: String,
}

/// A wait this long without news gets a sign of life.
const QUIET: Duration = Duration::from_secs(10);

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { started: now, spoken: now, stepped: now, doing: String::new(), next: String::new() }
    }

    /// Says what happens from now on, and what after that.
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

    /// Says something that happened.
    pub fn say(&mut self, what: &str) {
        self.spoken = Instant::now();
        println!("bed [{:>6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    /// Called often while waiting: says now and then that the step still goes on.
    pub fn tick(&mut self) {
        if self.spoken.elapsed() >= QUIET {
            let seconds = self.stepped.elapsed().as_secs();
            let line = format!("… for {seconds} s: {}", self.doing);
            self.say(&line);
        }
    }
}

/// Shows a command that is about to run.
pub fn echo(command: &str) {
    println!("+ {command}");
}
